"""Target codec for regression: one number per row."""

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
    """Encode a number; a row with an empty cell is unlabelled.

    The mean and standard deviation of the training rows are stored as `mean` and `std`.
    """

    kind = "number"
    examples = ("0.5", "-1", "2", "1.25", "0", "3")

    def fit(self, cells: Sequence[Any], train: np.ndarray, known: TargetData | None) -> EncodedTarget:
        """Encode the cells of all rows; the values are (N,) float64, with NaN for unlabelled rows.

        Args:
            cells: Cells of all rows, (N,).
            train: Whether each row is a training row, (N,) bool; mean and standard deviation are those of the training
                rows.
            known: Target data of a trained model, of which nothing is used; it may lack training rows.

        Raises:
            ValueError: If no training row is labelled and there is no trained model.
        """
        values, faults = np.full(len(cells), np.nan), {}
        for row, cell in enumerate(cells):
            try:
                values[row] = value_of(text_of(cell))
            except ValueError as error:
                faults[row] = str(error)
        seen = values[train & np.isfinite(values)]
        if known is None and not len(seen) and not train[list(faults)].any():
            raise ValueError("no training row has a number, wanted some; look at datamodule.columns.target and .split")
        mean, std = mean_and_std(seen) if len(seen) else (0.0, 1.0)
        facts = {"mean": mean, "std": std}
        return EncodedTarget(torch.from_numpy(values), TargetData(kind=self.kind, facts=facts), faults)

    def strata(self, cell: Any) -> None:
        return None

    def decode(self, target: Tensor, data: TargetData) -> float | None:
        return None if target.isnan() else float(target)
