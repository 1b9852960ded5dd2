"""Transforms of image inputs: from a file to pixels."""

from typing import TYPE_CHECKING

from mm.lazy import lazy_exports

if TYPE_CHECKING:
    from mm.transforms.vision.pixels import ImageTransform

__all__ = ["ImageTransform"]

__getattr__, __dir__ = lazy_exports(__name__, __file__)
