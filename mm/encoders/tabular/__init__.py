"""Encoders of table rows, which map numbers and categories to one vector per cell."""

from typing import TYPE_CHECKING

from mm.lazy import lazy_exports

if TYPE_CHECKING:
    from mm.encoders.tabular.mlp import TabularMLP
    from mm.encoders.tabular.transformer import TabularTransformer

__all__ = ["TabularMLP", "TabularTransformer"]

__getattr__, __dir__ = lazy_exports(__name__, __file__)
