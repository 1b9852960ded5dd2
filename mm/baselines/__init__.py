"""Baselines: classical models of scikit-learn, fitted in seconds, beside which the results of a model are read."""

from typing import TYPE_CHECKING

from mm.lazy import lazy_exports

if TYPE_CHECKING:
    from mm.baselines.fitting import baseline
    from mm.baselines.report import BaselineReport, BaselineResult

__all__ = ["BaselineReport", "BaselineResult", "baseline"]

__getattr__, __dir__ = lazy_exports(__name__, __file__)
