"""Sounds -> waveforms."""

from collections.abc import Sequence
from contextlib import suppress
from math import ceil, gcd
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mm.transforms.augment import AugmentError, augmented
from mm.transforms.stored import Stored
from mm.transforms.windows import check_limit, check_multiple, limit, room
from mm.types import Read

LARGEST_KERNEL = 100_000_000  # floats of a resampling kernel, 400 MB: 11127 -> 16000 Hz, but no broken header


class Waveform:
    """Paths, Stored files, arrays (L,), or (array, its rate) -> mono waveforms (L,) float32 at `sample_rate`.

    sample_rate: Hz, that of an array alone too; max_length: samples; too_long, overlap: see limit; augment: torchaudio
    transforms, in training only, on (L,); pad_multiple: batches are padded to whole ones of so many samples. Several
    channels are averaged.
    Errors: ValueError where it is no sound, empty, or not finite.
    """

    def __init__(
        self,
        sample_rate: int,
        max_length: int | None = None,
        too_long: str = "truncate",
        overlap: float = 0.25,
        augment: Sequence[Any] | None = None,
        pad_multiple: int = 1,
    ):
        self.sample_rate = sample_rate
        self.max_length = max_length
        self.too_long = check_limit(max_length, too_long, overlap)
        self.overlap = overlap
        self.augment = list(augment or ())
        self.random = bool(self.augment)
        self.multiple = check_multiple(pad_multiple)
        self.filler = torch.zeros(sample_rate // 10)  # convolutions of an encoder need some length
        self.meta: dict[str, Tensor] = {}

    def __call__(self, raw: Any, train: bool = False) -> Read:
        wave, rate = open_sound(raw, self.sample_rate)
        if not len(wave):
            raise ValueError("the sound is empty")
        if not wave.sum().isfinite() and not wave.isfinite().all():  # the sum is ten times as fast, and may overflow
            raise ValueError("the sound holds NaN or infinite samples")
        if rate != self.sample_rate:
            wave = resampled(wave, rate, self.sample_rate)
        if train and self.augment:
            wave = augmented(self.augment, wave)
            if wave.dim() != 1 or not len(wave) or not wave.isfinite().all():
                raise AugmentError(f"the augmentations gave shape {tuple(wave.shape)}, wanted finite samples (L,)")
        return limit(wave, self.max_length, self.too_long, self.overlap, "samples")

    def finish(self, x: Tensor) -> Tensor:
        return x

    def lengths(self, raw: Sequence[Any]) -> list[float]:
        # rounded up, as resampling does; a duration is a quotient, and may come out a little above a whole sample
        counts = [ceil(seconds(x, self.sample_rate) * self.sample_rate - 1e-3) for x in raw]
        how = self.max_length, self.too_long, self.overlap, self.multiple
        return [room(count, *how) / self.sample_rate for count in counts]


def seconds(raw: Any, sample_rate: int) -> float:
    """How long a sound is, by its header; 0 where there is none."""
    import soundfile

    if isinstance(raw, str | Path):
        with suppress(soundfile.LibsndfileError, OSError, TypeError):
            return soundfile.info(raw).duration
        return 0.0
    if isinstance(raw, Stored):
        return raw.seconds
    if isinstance(raw, tuple):
        return len(raw[0]) / raw[1]
    return 0.0 if raw is None else len(raw) / sample_rate


def resampled(wave: Tensor, rate: int, wanted: int) -> Tensor:
    """(L,) -> (L * wanted / rate,). Errors: ValueError where the rate is none, as in a broken header."""
    from torchaudio.functional import resample  # slow to import

    common = gcd(rate, wanted)
    old, new = rate // common, wanted // common
    if rate < 1 or new * (old + 12 * ceil(old / min(old, new))) > LARGEST_KERNEL:
        raise ValueError(
            f"{rate} Hz can't be resampled to {wanted} Hz; is the file's header broken? Else convert it first"
        )
    return resample(wave, rate, wanted)


def open_sound(raw: Any, sample_rate: int) -> tuple[Tensor, int]:
    """-> mono waveform (L,), its rate. Errors: ValueError where it is no sound, or broken."""
    if isinstance(raw, str | Path | Stored):
        return read_file(raw)
    if isinstance(raw, tuple) and len(raw) == 2 and isinstance(raw[0], np.ndarray | Tensor):
        if isinstance(raw[1], bool) or not isinstance(raw[1], int | np.integer) or raw[1] < 1:
            raise ValueError(f"got {raw[1]!r} as sample rate, wanted a whole number of Hz")
        return open_sound(raw[0], sample_rate)[0], int(raw[1])
    if isinstance(raw, np.ndarray | Tensor):
        floats = raw.is_floating_point() if isinstance(raw, Tensor) else raw.dtype.kind == "f"
        if raw.ndim != 1 or not floats:
            raise ValueError(
                f"got {raw.dtype} of shape {tuple(raw.shape)}, wanted floats (L,) in -1..1; average the channels "
                "of a sound, and divide integers by their largest"
            )
        # copied: an array may be read-only or reversed, a tensor on another device
        return raw.detach().cpu().float() if isinstance(raw, Tensor) else torch.tensor(
            raw.astype(np.float32)
        ), sample_rate
    raise ValueError(f"got {type(raw).__name__}, wanted a sound: a path, an array, or (array, sample rate)")


def read_file(path: str | Path | Stored) -> tuple[Tensor, int]:
    """-> mono waveform (L,), its rate. Errors: ValueError where libsndfile can't read it."""
    import soundfile

    file = path.open() if isinstance(path, Stored) else path
    try:
        data, rate = soundfile.read(file, dtype="float32", always_2d=True)  # (L, channels)
    # TypeError: a suffix that libsndfile takes as headerless; MemoryError: a broken header promises too many samples
    except (soundfile.LibsndfileError, OSError, TypeError, MemoryError) as error:
        raise ValueError(f"can't read the sound {path}: {str(error).rstrip('.')}") from None
    return torch.from_numpy(data[:, 0] if data.shape[1] == 1 else data.mean(1)), rate
