"""A number."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mm.cells import text_of
from mm.cells.numbers import mean_and_std, value_of
from mm.configurable import Configurable
from mm.types import EncodedTarget, TargetData


class RegressionTarget(Configurable):
    """A cell is a number; an empty one is unlabelled. `mean` and `std` are those of the training rows."""

    kind = "number"
    examples = ("0.5", "-1", "2", "1.25", "0", "3")

    def fit(self, cells: Sequence[Any], train: np.ndarray, known: TargetData | None) -> EncodedTarget:
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
        return EncodedTarget(torch.from_numpy(values), TargetData(kind=self.kind, facts=facts), faults)

    def strata(self, cell: Any) -> None:
        return None

    def decode(self, target: Tensor, data: TargetData) -> float | None:
        return None if target.isnan() else float(target)
