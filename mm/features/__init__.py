"""Features of frozen encoders, which are computed once and stored in memory-mapped files."""

from typing import TYPE_CHECKING

from mm.lazy import lazy_exports

if TYPE_CHECKING:
    from mm.features.store import FrozenFeatures

__all__ = ["FrozenFeatures"]

__getattr__, __dir__ = lazy_exports(__name__, __file__)
