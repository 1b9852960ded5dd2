"""Corruptions of a waveform (L,) at `rate` Hz, whose length stays.

Severity is 0 (the sound as it is) to 1; what is random comes from `rng`: the same one gives every severity the same
noise, stronger or weaker.
"""

from dataclasses import dataclass
from math import ceil, log

import numpy as np
import torch
from torch import Tensor

from mm.transforms.corrupt.settings import check


@dataclass(frozen=True)
class AdditiveNoise:
    """White noise at a signal-to-noise ratio from `max_snr_db` (severity near 0) down to `min_snr_db` (severity 1)."""

    max_snr_db: float
    min_snr_db: float

    def __post_init__(self) -> None:
        check(self, -200, 200, max_snr_db=self.max_snr_db, min_snr_db=self.min_snr_db)

    def __call__(self, wave: Tensor, rate: int, severity: float, rng: np.random.Generator) -> Tensor:
        if not severity:
            return wave
        from torchaudio.functional import add_noise  # slow to import

        noise = torch.from_numpy(rng.standard_normal(len(wave), dtype=np.float32))
        return add_noise(wave, noise, torch.tensor(self.max_snr_db + severity * (self.min_snr_db - self.max_snr_db)))


@dataclass(frozen=True)
class Dropout:
    """Each stretch of `duration_s` seconds is silent with probability severity * `fraction`."""

    fraction: float
    duration_s: float

    def __post_init__(self) -> None:
        check(self, 0, 1, fraction=self.fraction)
        check(self, 0, duration_s=self.duration_s)

    def __call__(self, wave: Tensor, rate: int, severity: float, rng: np.random.Generator) -> Tensor:
        length = max(1, round(self.duration_s * rate))
        heard = torch.from_numpy(rng.random(ceil(len(wave) / length)) >= severity * self.fraction)
        return wave * heard.repeat_interleave(length)[: len(wave)]


@dataclass(frozen=True)
class Clipping:
    """The loudest samples, severity * `fraction` of all, are cut off at the level of the others' loudest."""

    fraction: float

    def __post_init__(self) -> None:
        check(self, 0, 1, fraction=self.fraction)

    def __call__(self, wave: Tensor, rate: int, severity: float, rng: np.random.Generator) -> Tensor:
        whole = max(1, len(wave) - round(severity * self.fraction * len(wave)))
        level = wave.abs().kthvalue(whole).values
        return wave.clamp(-level, level)


@dataclass(frozen=True)
class Reverberation:
    """A room of synthetic echoes: white noise that decays by 60 dB in severity * `rt60` seconds.

    The echoes have severity * `wet_gain` times the energy of the direct sound; both together have the energy of one.
    """

    rt60: float
    wet_gain: float

    def __post_init__(self) -> None:
        check(self, 0, rt60=self.rt60, wet_gain=self.wet_gain)

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
