"""Features of frozen encoders, computed once and read from memory-mapped files."""

from typing import TYPE_CHECKING

from mm.lazy import lazy_exports

if TYPE_CHECKING:
    from mm.features.store import FrozenFeatures

__all__ = ["FrozenFeatures"]

__getattr__, __dir__ = lazy_exports(__name__, __file__)
