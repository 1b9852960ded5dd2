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
    """White noise at a signal-to-noise ratio from `highest` dB (severity near 0) down to `lowest` (severity 1)."""

    highest: float
    lowest: float

    def __post_init__(self) -> None:
        check(self, -200, 200, highest=self.highest, lowest=self.lowest)

    def __call__(self, wave: Tensor, rate: int, severity: float, rng: np.random.Generator) -> Tensor:
        if not severity:
            return wave
        from torchaudio.functional import add_noise  # slow to import

        noise = torch.from_numpy(rng.standard_normal(len(wave), dtype=np.float32))
        return add_noise(wave, noise, torch.tensor(self.highest + severity * (self.lowest - self.highest)))


@dataclass(frozen=True)
class Dropout:
    """Each stretch of `seconds` is silent with probability severity * `part`."""

    part: float
    seconds: float

    def __post_init__(self) -> None:
        check(self, 0, 1, part=self.part)
        check(self, 0, seconds=self.seconds)

    def __call__(self, wave: Tensor, rate: int, severity: float, rng: np.random.Generator) -> Tensor:
        length = max(1, round(self.seconds * rate))
        heard = torch.from_numpy(rng.random(ceil(len(wave) / length)) >= severity * self.part)
        return wave * heard.repeat_interleave(length)[: len(wave)]


@dataclass(frozen=True)
class Clipping:
    """The loudest samples, severity * `part` of all, are cut off at the level of the others' loudest."""

    part: float

    def __post_init__(self) -> None:
        check(self, 0, 1, part=self.part)

    def __call__(self, wave: Tensor, rate: int, severity: float, rng: np.random.Generator) -> Tensor:
        whole = max(1, len(wave) - round(severity * self.part * len(wave)))
        level = wave.abs().kthvalue(whole).values
        return wave.clamp(-level, level)


@dataclass(frozen=True)
class Reverberation:
    """A room of synthetic echoes: white noise that decays by 60 dB in severity * `seconds`.

    The echoes have severity * `echo` times the energy of the direct sound; both together have the energy of one.
    """

    seconds: float
    echo: float

    def __post_init__(self) -> None:
        check(self, 0, seconds=self.seconds, echo=self.echo)

    def __call__(self, wave: Tensor, rate: int, severity: float, rng: np.random.Generator) -> Tensor:
        if not severity:
            return wave
        from torchaudio.functional import fftconvolve  # slow to import

        count = max(1, round(self.seconds * rate))
        decay = torch.arange(count) * (-3 * log(10) / (severity * count))  # of the amplitude: 60 dB are 10^3
        tail = torch.from_numpy(rng.standard_normal(count, dtype=np.float32)) * decay.exp()
        tail *= (severity * self.echo) ** 0.5 / tail.norm()
        response = torch.cat([torch.ones(1), tail]) / (1 + severity * self.echo) ** 0.5
        return fftconvolve(wave, response[: len(wave)])[: len(wave)]
