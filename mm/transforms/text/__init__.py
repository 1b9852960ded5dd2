"""Transforms of text inputs: from a string to token ids."""

from typing import TYPE_CHECKING

from mm.lazy import lazy_exports

if TYPE_CHECKING:
    from mm.transforms.text.tokens import TextTransform

__all__ = ["TextTransform"]

__getattr__, __dir__ = lazy_exports(__name__, __file__)
