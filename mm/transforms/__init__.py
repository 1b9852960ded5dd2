"""Transforms, which convert the cell of a table into the input of an encoder."""

from typing import TYPE_CHECKING

from mm.lazy import lazy_exports

if TYPE_CHECKING:
    from mm.transforms.audio import AudioTransform
    from mm.transforms.tabular import TabularTransform
    from mm.transforms.text import TextTransform
    from mm.transforms.vision import ImageTransform

__all__ = [
    "AudioTransform",
    "ImageTransform",
    "TabularTransform",
    "TextTransform",
]

__getattr__, __dir__ = lazy_exports(__name__, __file__, ("audio", "corrupt", "tabular", "text", "vision"))
