"""Corruptions of inputs for the evaluation of robustness."""

from typing import TYPE_CHECKING

from mm.lazy import lazy_exports

if TYPE_CHECKING:
    from mm.transforms.corrupt.audio import AdditiveNoise, Clipping, Dropout, Reverberation
    from mm.transforms.corrupt.corrupted import CorruptedTransform, DroppedInput
    from mm.transforms.corrupt.text import Typos, WordDrop, WordSwap
    from mm.transforms.corrupt.vision import GaussianBlur, GaussianNoise, Jpeg, Occlusion

__all__ = [
    "AdditiveNoise",
    "Clipping",
    "CorruptedTransform",
    "Dropout",
    "DroppedInput",
    "GaussianBlur",
    "GaussianNoise",
    "Jpeg",
    "Occlusion",
    "Reverberation",
    "Typos",
    "WordDrop",
    "WordSwap",
]

__getattr__, __dir__ = lazy_exports(__name__, __file__)
