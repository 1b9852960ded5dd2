"""Recordings as the Free Spoken Digit Dataset has them, whose height tells digit, speaker and take."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile

SPEAKERS = ("ann", "bob", "zoe")


def write_clips(path: Path, rate: int, length: Callable[[int], int]) -> None:
    """length: samples of a digit's clips"""
    (path / "fsdd/recordings").mkdir(parents=True)
    for digit in range(10):
        for i, speaker in enumerate(SPEAKERS):
            for take in range(50):
                wave = np.full(length(digit), (1 + digit * 150 + i * 50 + take) / 2**11)
                soundfile.write(path / f"fsdd/recordings/{digit}_{speaker}_{take}.wav", wave, rate, subtype="PCM_16")


def told(height: float) -> tuple[int, str, int]:
    """Digit, speaker and take of a clip."""
    number = round(height * 2**11) - 1
    return number // 150, SPEAKERS[number % 150 // 50], number % 50
