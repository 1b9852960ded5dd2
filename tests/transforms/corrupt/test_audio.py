import numpy as np
import pytest
import torch
from torch import Tensor

from mm.transforms.corrupt.audio import AdditiveNoise, Clipping, Dropout, Reverberation

RATE = 8000
ALL = [AdditiveNoise(30.0, -10.0), Dropout(0.9, 0.02), Clipping(0.9), Reverberation(2.0, 10.0)]


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def sound() -> Tensor:
    """A second that rises from 100 to 3000 Hz."""
    time = torch.arange(RATE) / RATE
    return 0.5 * torch.sin(2 * torch.pi * (100 * time + 1450 * time**2))


@pytest.mark.parametrize("corruption", ALL)
def test_severity_0_changes_nothing_and_more_harms_more(corruption):
    wave = sound()
    before = wave.clone()
    assert torch.equal(corruption(wave, RATE, 0.0, rng()), wave)
    harm = []
    for severity in (0.1, 0.4, 0.7, 1.0):
        found = corruption(wave, RATE, severity, rng())
        assert found.shape == wave.shape
        assert found.dtype == torch.float32
        harm.append(1 - float(torch.cosine_similarity(found, wave, dim=0)))
    assert harm == sorted(harm)
    assert harm[0] < 0.5 * harm[-1]
    assert torch.equal(wave, before)


@pytest.mark.parametrize("corruption", ALL)
def test_silence_stays_silent_and_one_sample_is_enough(corruption):
    assert not corruption(torch.zeros(1000), RATE, 1.0, rng()).any()
    assert corruption(torch.ones(1), RATE, 1.0, rng()).shape == (1,)


@pytest.mark.parametrize(("severity", "wanted"), [(0.25, 20.0), (0.5, 10.0), (1.0, -10.0)])
def test_noise_has_its_ratio_to_the_signal(severity, wanted):
    wave = sound()
    noise = AdditiveNoise(30.0, -10.0)(wave, RATE, severity, rng()) - wave
    assert float(10 * torch.log10(wave.square().sum() / noise.square().sum())) == pytest.approx(wanted, abs=0.01)


def test_dropout_silences_whole_stretches():
    heard = Dropout(0.8, 0.02)(torch.ones(100 * RATE), RATE, 0.5, rng()).view(-1, 160)  # 20 ms
    assert set(heard.mean(1).tolist()) == {0.0, 1.0}
    assert float(heard.mean()) == pytest.approx(0.6, abs=0.02)


def test_clipping_cuts_off_its_part_of_the_samples():
    wave = torch.from_numpy(rng().standard_normal(10_000)).float()
    clipped = Clipping(0.6)(wave, RATE, 0.5, rng())
    assert int((clipped != wave).sum()) == 3000
    assert torch.equal(clipped.abs(), wave.abs().clamp(max=float(wave.abs().sort().values[6999])))


def test_echoes_decay_by_60_db_and_have_their_energy():
    impulse = torch.zeros(2 * RATE)
    impulse[0] = 1
    response = Reverberation(2.0, 4.0)(impulse, RATE, 0.5, rng())  # 60 dB in a second, twice the energy
    energy = response.square()
    assert float(energy.sum()) == pytest.approx(1, abs=1e-3)
    assert float(energy[1:].sum() / energy[0]) == pytest.approx(2, abs=0.01)
    level = 10 * torch.log10(energy[1 : RATE + 1].view(20, -1).mean(1))  # dB, every 50 ms
    slope = np.polyfit(np.arange(20) * 0.05, level.numpy(), 1)[0]
    assert slope == pytest.approx(-60, abs=2)
