import pytest
import torch
from torchaudio.transforms import MelSpectrogram

from mm.encoders.audio.log_mel import LogMel


def build(**arguments) -> LogMel:
    defaults = {"sample_rate": 8000, "n_mels": 40, "window": 0.025, "hop": 0.010}
    return LogMel(**(defaults | {"time_masks": 0, "time_width": 8, "freq_masks": 0, "freq_width": 6} | arguments))


@pytest.mark.parametrize("length", [1500, 1599, 1600, 2400])
def test_equals_torchaudio_on_the_unpadded_clip(length):
    x = torch.randn(1, 2400) * 0.1
    mask = torch.arange(2400)[None] < length
    mel, real = build()(x, mask)  # the tail of x is noise behind the mask
    wanted = MelSpectrogram(8000, n_fft=256, win_length=200, hop_length=80, n_mels=40, pad_mode="constant")(
        x[:, :length]
    )
    wanted = (wanted + 1e-6).log()
    wanted = (wanted - wanted.mean()) / (wanted.var(correction=0) + 1e-5).sqrt()
    assert real.sum() == wanted.shape[2]
    torch.testing.assert_close(mel[:, :, real[0]], wanted, atol=1e-5, rtol=1e-4)
    assert (mel[:, :, ~real[0]] == 0).all()


def test_absent_and_silent_clips_are_finite():
    mel, real = build()(torch.zeros(2, 800), torch.tensor([[True], [False]]).expand(2, 800))
    assert mel.isfinite().all() and real.any(1).tolist() == [True, False]


def test_loudness_and_bf16_do_not_matter():
    x = torch.randn(1, 2400)
    mask = torch.ones(1, 2400, dtype=torch.bool)
    with torch.autocast("cpu", torch.bfloat16):
        quiet = build()(0.5 * x, mask)[0]
    torch.testing.assert_close(quiet, build()(x, mask)[0], atol=1e-2, rtol=1e-2)


def test_masks_in_training_only():
    frontend = build(time_masks=2, freq_masks=2)
    x = torch.randn(4, 2400)
    mask = torch.ones(4, 2400, dtype=torch.bool)
    hidden = [(frontend.train(training)(x, mask)[0] == 0).flatten(1).float().mean(1) for training in (True, False)]
    assert (hidden[1] == 0).all() and (hidden[0] > 0).any() and hidden[0].unique().numel() > 1  # each clip its own
    assert (hidden[0] < 0.9).all()
