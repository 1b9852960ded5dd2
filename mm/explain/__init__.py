"""Explanations of predictions."""

from typing import TYPE_CHECKING

from mm.lazy import lazy_exports

if TYPE_CHECKING:
    from mm.explain.influence import Influence

__all__ = ["Influence"]

__getattr__, __dir__ = lazy_exports(__name__, __file__)
