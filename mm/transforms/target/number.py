"""A number."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mm.cells import text_of
from mm.configurable import Configurable
from mm.transforms.target.numberlike import number_hint
from mm.types import TargetData, TargetRead

LARGEST = float(np.finfo(np.float32).max)


class Number(Configurable):
    """A cell is a number; an empty one is unlabelled. `mean` and `std` are those of the training rows."""

    kind = "number"
    examples = ("0.5", "-1", "2", "1.25", "0", "3")

    def learn(self, cells: Sequence[Any], train: np.ndarray, known: TargetData | None) -> TargetRead:
        """-> (N,) float64, NaN where unlabelled"""
        values, faults = np.full(len(cells), np.nan), {}
        for row, cell in enumerate(cells):
            try:
                values[row] = value_of(text_of(cell))
            except ValueError as error:
                faults[row] = str(error)
        seen = values[train & np.isfinite(values)]
        mean, std = mean_and_std(seen) if len(seen) else (0.0, 1.0)
        facts = {"mean": mean, "std": std}
        return TargetRead(torch.from_numpy(values), TargetData(kind=self.kind, facts=facts), faults)

    def strata(self, cell: Any) -> None:
        return None

    def readable(self, target: Tensor, data: TargetData) -> float | None:
        return None if target.isnan() else float(target)


def mean_and_std(values: np.ndarray) -> tuple[float, float]:
    """Return the mean and the standard deviation of some numbers (N,) float64, at least one.

    The deviation of equal numbers is exactly 0, which it is not where the rounded mean differs from them.
    """
    low, high = float(values.min()), float(values.max())
    return (low, 0.0) if low == high else (float(values.mean()), float(values.std()))


def value_of(text: str) -> float:
    """NaN of nothing. Errors: ValueError where it is no finite number."""
    try:
        value = float(text) if text else math.nan
    except ValueError:
        raise ValueError(f"got '{text}', wanted a number{number_hint(text)}") from None
    if text and not abs(value) <= LARGEST:  # NaN is not, either
        raise ValueError(f"got '{text}', wanted a finite number{number_hint(text)}")
    return value
