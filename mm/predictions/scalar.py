"""Prediction of a number."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from mm.predictions.base import Decoding, Prediction


class ScalarFields(NamedTuple):
    """Tensors of `Scalar`."""

    value: Tensor  # (B,)


class Scalar(Prediction, ScalarFields):
    """A number per row (B,), in the units of the data.

    A target is (B,) in floating point, with NaN for unlabelled rows.
    """

    __slots__ = ()
    has_sets = True

    def merge(self, group: Tensor, count: int) -> "Scalar":
        """Average the values of the windows of each row."""
        member = F.one_hot(group, count).T.to(self.value.dtype)  # (count, B)
        return Scalar(member @ self.value / member.sum(1))

    def decode(self, decoding: Decoding, meta: Mapping[str, Tensor]) -> list[dict[str, Any]]:
        """Return {"prediction": value} per row."""
        return [{"prediction": value} for value in self.value.tolist()]

    def metric_inputs(self, target: Tensor) -> tuple[Tensor, Tensor]:
        """Return the predicted values (N,) and the targets (N,) of the labelled rows."""
        labelled = ~target.isnan()
        return self.value[labelled], target[labelled].to(self.value.dtype)

    def nonconformity(self, target: Tensor, decoding: Decoding) -> Tensor:
        """Return the absolute residual of each labelled row, (N, 1) (Lei et al. 2018)."""
        value, truth = self.metric_inputs(target)
        return (value - truth).abs().unsqueeze(1)

    def prediction_sets(
        self, quantiles: Sequence[float], decoding: Decoding, meta: Mapping[str, Tensor]
    ) -> tuple[list[dict[str, Any]], Tensor]:
        """Return {"prediction_interval": [low, high]} per row, and the width of each interval, (B,)."""
        half = quantiles[0]
        rows = [{"prediction_interval": [value - half, value + half]} for value in self.value.tolist()]
        return rows, torch.full_like(self.value, 2 * half)
