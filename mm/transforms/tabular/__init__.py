"""Transforms of tabular inputs: from the cells of a row to numbers and categories."""

from typing import TYPE_CHECKING

from mm.lazy import lazy_exports

if TYPE_CHECKING:
    from mm.transforms.tabular.row import TabularTransform

__all__ = ["TabularTransform"]

__getattr__, __dir__ = lazy_exports(__name__, __file__)
