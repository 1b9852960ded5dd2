"""Sounds -> waveforms."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mm.transforms.windows import check_too_long, limit
from mm.types import Read


class Waveform:
    """Paths, arrays (L,) at `sample_rate`, or (array, its rate) -> mono waveforms (L,) float32 at `sample_rate`.

    sample_rate: Hz; max_length: samples; too_long: truncate, refuse or window, windows overlapping by `overlap`;
    augment: torchaudio transforms, in training only, on (L,). Several channels are averaged.
    Errors: ValueError where it is no sound, empty, or not finite.
    """

    def __init__(
        self,
        sample_rate: int,
        max_length: int | None = None,
        too_long: str = "truncate",
        overlap: float = 0.25,
        augment: Sequence[Any] | None = None,
    ):
        self.sample_rate = sample_rate
        self.max_length = max_length
        self.too_long = check_too_long(too_long)
        self.overlap = overlap
        self.augment = list(augment or ())
        self.filler = torch.zeros(sample_rate // 10)  # convolutions of an encoder need some length

    def __call__(self, raw: Any, train: bool = False) -> Read:
        wave, rate = open_sound(raw, self.sample_rate)
        if not len(wave):
            raise ValueError("the sound is empty")
        if not wave.isfinite().all():
            raise ValueError("the sound holds NaN or infinite samples")
        if rate != self.sample_rate:
            from torchaudio.functional import resample  # slow to import

            wave = resample(wave, rate, self.sample_rate)
        if train:
            for augment in self.augment:
                wave = augment(wave)
                wave = wave[0] if isinstance(wave, tuple) else wave  # SpeedPerturbation gives lengths as well
        return limit(wave, self.max_length, self.too_long, self.overlap, "samples")


def open_sound(raw: Any, sample_rate: int) -> tuple[Tensor, int]:
    """-> mono waveform (L,), its rate. Errors: ValueError where it is no sound, or broken."""
    if isinstance(raw, str | Path):
        import soundfile

        try:
            data, rate = soundfile.read(raw, dtype="float32", always_2d=True)  # (L, channels)
        except (soundfile.LibsndfileError, OSError) as error:
            raise ValueError(f"can't read the sound {raw}: {error}") from None
        return torch.from_numpy(data.mean(1)), rate
    if isinstance(raw, tuple) and len(raw) == 2:
        return open_sound(raw[0], sample_rate)[0], int(raw[1])
    if isinstance(raw, np.ndarray | Tensor):
        wave = torch.as_tensor(raw)
        if wave.dim() != 1 or not wave.is_floating_point():
            raise ValueError(f"got {wave.dtype} of shape {tuple(wave.shape)}, wanted floats (L,) in -1..1")
        return wave.float(), sample_rate
    raise ValueError(f"got {type(raw).__name__}, wanted a sound: a path, an array, or (array, sample rate)")
