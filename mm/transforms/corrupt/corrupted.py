"""Transforms that corrupt or remove the inputs of some rows before they apply the transform of a model."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from torch import Tensor

from mm.transforms.audio.waveform import AudioTransform, check_samples, open_sound
from mm.transforms.text.tokens import TextTransform
from mm.transforms.vision.pixels import ImageTransform
from mm.types import EncodedInput, Features, Transform

NOTHING = EncodedInput([], False)


class CorruptedTransform:
    """Transform that corrupts the input of a row and then applies another transform.

    It is called with the index of the row.

    Args:
        transform: Transform of the model.
        raw: Raw input of each row.
        modality: Modality of the input.
        corruption: A corruption of `mm.transforms.corrupt.text`, `.vision` or `.audio`.
        severity: Severity in 0..1.
        seed: Seed of the random numbers, which is combined with the index of the row.

    Raises:
        ValueError: If corruptions of this modality do not support the transform of the model.
    """

    filler: Tensor | Features
    multiple: int
    random = False

    def __init__(
        self,
        transform: Transform,
        raw: Sequence[Any],
        modality: str,
        corruption: Callable[..., Any],
        severity: float,
        seed: int,
    ):
        if not isinstance(transform, KNOWN.get(modality, object)):
            raise ValueError(
                f"corruptions of {modality} support {KNOWN[modality].__name__}, but the model reads it by "
                f"{type(transform).__name__}; leave its corruptions out with robustness.corruptions"
            )
        if isinstance(transform, TextTransform) and (transform.return_offsets or transform.markers):
            raise ValueError(
                "corruptions of text would change the words that a head tells of, or the markers that it looks for; "
                "leave them out with robustness.corruptions"
            )
        self.transform = transform
        self.raw = raw
        self.read = READERS[modality]
        self.corruption = corruption
        self.severity = severity
        self.seed = seed
        self.filler, self.multiple, self.meta = transform.filler, transform.multiple, transform.meta
        self.finish, self.lengths = transform.finish, transform.lengths

    def __call__(self, raw: Any, train: bool = False) -> EncodedInput:
        found = self.raw[raw]
        if found is None or (isinstance(found, str) and not found):
            return NOTHING
        corrupt = partial(self.corruption, severity=self.severity, rng=np.random.default_rng([self.seed, raw]))
        return self.read(self.transform, found, corrupt)


class DroppedInput:
    """Transform that makes the input of some rows absent; it is called with the index of the row.

    Args:
        transform: Transform of the model, which is also called with the index of the row.
        lost: Indices of the rows whose input is absent.
    """

    filler: Tensor | Features
    multiple: int
    random = False

    def __init__(self, transform: Transform, lost: Sequence[int]):
        self.transform = transform
        self.lost = frozenset(lost)
        self.filler, self.multiple, self.meta = transform.filler, transform.multiple, transform.meta
        self.finish, self.lengths = transform.finish, transform.lengths

    def __call__(self, raw: Any, train: bool = False) -> EncodedInput:
        read = self.transform(raw)
        return NOTHING._replace(taken=True) if raw in self.lost and read.windows else read


def read_text(transform: Transform, raw: Any, corrupt: Callable[..., str]) -> EncodedInput:
    """Corrupt a text, or both texts of a pair, and convert the result to token ids."""
    if isinstance(raw, list | tuple):
        return transform([corrupt(x) if isinstance(x, str) else x for x in raw])
    return transform(corrupt(raw) if isinstance(raw, str) else raw)


def read_pixels(transform: Transform, raw: Any, corrupt: Callable[..., Tensor]) -> EncodedInput:
    """Convert an image to pixels of the size that the encoder expects, and corrupt these uint8 pixels."""
    read = transform(raw)
    return read._replace(windows=[corrupt(x) for x in read.windows])


def read_wave(transform: Any, raw: Any, corrupt: Callable[..., Tensor]) -> EncodedInput:
    """Corrupt a complete audio clip at its original sample rate, and then resample and truncate it.

    The noise may exceed -1..1.
    """
    wave, rate = open_sound(raw, transform.sample_rate)
    check_samples(wave)
    return transform.prepare(corrupt(wave, rate), rate)


READERS: dict[str, Callable[..., EncodedInput]] = {"text": read_text, "vision": read_pixels, "audio": read_wave}
KNOWN = {"vision": ImageTransform, "audio": AudioTransform}
