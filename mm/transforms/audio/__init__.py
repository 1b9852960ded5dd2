"""Transforms of audio inputs: from a file to a waveform."""

from typing import TYPE_CHECKING

from mm.lazy import lazy_exports

if TYPE_CHECKING:
    from mm.transforms.audio.waveform import AudioTransform

__all__ = ["AudioTransform"]

__getattr__, __dir__ = lazy_exports(__name__, __file__)
