"""Optimizer parameter groups, learning-rate schedules, and gradual unfreezing."""

from typing import TYPE_CHECKING

from mm.lazy import lazy_exports

if TYPE_CHECKING:
    from mm.tasks.optim.schedule import Schedule

__all__ = ["Schedule"]

__getattr__, __dir__ = lazy_exports(__name__, __file__)
