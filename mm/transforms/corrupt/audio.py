"""Corruptions of a waveform (L,) with a sample rate of `rate` Hz, which keep its length.

A severity of 0 leaves the waveform unchanged, and 1 is the strongest corruption. Random numbers come from `rng`; with
the same generator, every severity uses the same noise, only stronger or weaker.
"""

from dataclasses import dataclass
from math import ceil, log

import numpy as np
import torch
from torch import Tensor

from mm.transforms.corrupt.settings import check_range


@dataclass(frozen=True)
class AdditiveNoise:
    """Add white noise at a signal-to-noise ratio that falls from `max_snr_db` to `min_snr_db` with increasing severity.

    Args:
        max_snr_db: Signal-to-noise ratio near severity 0, in dB.
        min_snr_db: Signal-to-noise ratio at severity 1, in dB.
    """

    max_snr_db: float = 30.0
    min_snr_db: float = -10.0

    def __post_init__(self) -> None:
        check_range(self, -200, 200, max_snr_db=self.max_snr_db, min_snr_db=self.min_snr_db)

    def __call__(self, wave: Tensor, rate: int, severity: float, rng: np.random.Generator) -> Tensor:
        if not severity:
            return wave
        from torchaudio.functional import add_noise  # slow to import

        noise = torch.from_numpy(rng.standard_normal(len(wave), dtype=np.float32))
        return add_noise(wave, noise, torch.tensor(self.max_snr_db + severity * (self.min_snr_db - self.max_snr_db)))


@dataclass(frozen=True)
class Dropout:
    """Silence each segment of `duration_s` seconds with probability severity * `fraction`.

    Args:
        fraction: Probability at severity 1.
        duration_s: Length of a segment in seconds.
    """

    fraction: float = 0.9
    duration_s: float = 0.02

    def __post_init__(self) -> None:
        check_range(self, 0, 1, fraction=self.fraction)
        check_range(self, 0, duration_s=self.duration_s)

    def __call__(self, wave: Tensor, rate: int, severity: float, rng: np.random.Generator) -> Tensor:
        length = max(1, round(self.duration_s * rate))
        heard = torch.from_numpy(rng.random(ceil(len(wave) / length)) >= severity * self.fraction)
        return wave * heard.repeat_interleave(length)[: len(wave)]


@dataclass(frozen=True)
class Clipping:
    """Clip the loudest samples to the level of the loudest remaining sample.

    The fraction of samples that are clipped is severity * `fraction`.

    Args:
        fraction: Fraction of the samples at severity 1.
    """

    fraction: float = 0.9

    def __post_init__(self) -> None:
        check_range(self, 0, 1, fraction=self.fraction)

    def __call__(self, wave: Tensor, rate: int, severity: float, rng: np.random.Generator) -> Tensor:
        whole = max(1, len(wave) - round(severity * self.fraction * len(wave)))
        level = wave.abs().kthvalue(whole).values
        return wave.clamp(-level, level)


@dataclass(frozen=True)
class Reverberation:
    """Add the reverberation of a room, simulated by white noise that decays by 60 dB in severity * `rt60` seconds.

    The reverberation has severity * `wet_gain` times the energy of the direct sound. The sum is scaled to the energy of
    the direct sound alone.

    Args:
        rt60: Reverberation time (decay by 60 dB) at severity 1, in seconds.
        wet_gain: Energy of the reverberation relative to that of the direct sound, at severity 1.
    """

    rt60: float = 2.0
    wet_gain: float = 4.0

    def __post_init__(self) -> None:
        check_range(self, 0, rt60=self.rt60, wet_gain=self.wet_gain)

    def __call__(self, wave: Tensor, rate: int, severity: float, rng: np.random.Generator) -> Tensor:
        if not severity:
            return wave
        from torchaudio.functional import fftconvolve  # slow to import

        count = max(1, round(self.rt60 * rate))
        decay = torch.arange(count) * (-3 * log(10) / (severity * count))  # of the amplitude: 60 dB are 10^3
        tail = torch.from_numpy(rng.standard_normal(count, dtype=np.float32)) * decay.exp()
        tail *= (severity * self.wet_gain) ** 0.5 / tail.norm()
        response = torch.cat([torch.ones(1), tail]) / (1 + severity * self.wet_gain) ** 0.5
        return fftconvolve(wave, response[: len(wave)])[: len(wave)]
