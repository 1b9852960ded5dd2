"""A number."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mm.configurable import Configurable
from mm.metrics.regression import widest
from mm.types import Features

LOSSES = {"huber": F.huber_loss, "mse": F.mse_loss, "mae": F.l1_loss}


class RegressionHead(Configurable, nn.Module):
    """Linear regression of the pooled vector, in the user's units.

    embed_dim: width of the fused features; mean, std: of the training rows; criterion: huber, mse or mae, of the error
    divided by std; weight: of this head's loss among those of several heads. A target that is NaN is unlabelled.
    Values and targets are float64, and only the standardised error is float32: float32 has a step of 128 at 1.7e9,
    where Unix times are.
    Errors: ValueError for another criterion, or a target that does not vary.
    """

    input = None

    def __init__(
        self,
        *,
        embed_dim: int,
        mean: float,
        std: float,
        criterion: str = "huber",
        dropout: float = 0.0,
        weight: float = 1.0,
    ):
        super().__init__()
        if criterion not in LOSSES:
            raise ValueError(f"criterion: got '{criterion}', wanted one of {', '.join(LOSSES)}")
        if not std > 0:
            raise ValueError(
                f"std: got {std}, wanted more than 0: the training rows have one single value, nothing to learn"
            )
        self.mean = mean
        self.std = std
        self.criterion = criterion
        self.weight = weight
        self.drop = nn.Dropout(dropout)
        self.linear = nn.Linear(embed_dim, 1)

    def forward(self, fused: Features, target: Tensor | None = None) -> Tensor:
        """pooled (B, D) -> values (B,)"""
        value = self.linear(self.drop(fused.pooled)).squeeze(-1)
        return value.to(widest(value.device)) * self.std + self.mean

    def loss(self, prediction: Tensor, target: Tensor, fused: Features) -> tuple[Tensor, Tensor]:
        """(B,), (B,) -> sum over labelled rows of the standardised error's loss, their count"""
        labelled = ~target.isnan()
        error = ((prediction - target.nan_to_num()) / self.std).float()
        loss = LOSSES[self.criterion](error, torch.zeros_like(error), reduction="none")
        return (loss * labelled).sum(), labelled.sum().float()

    def score(self, prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """(B,), (B,) -> values (N,) and truth (N,) of the N labelled rows"""
        labelled = ~target.isnan()
        return prediction[labelled], target[labelled].to(prediction.dtype)

    def nonconformity(self, prediction: Tensor, target: Tensor) -> Tensor:
        """-> absolute residuals (N, 1) (Lei 2018)"""
        value, truth = self.score(prediction, target)
        return (value - truth).abs().unsqueeze(1)

    def region(
        self, prediction: Tensor, quantiles: Sequence[float], meta: Mapping[str, Tensor]
    ) -> tuple[list[dict[str, Any]], Tensor]:
        """-> {"interval": [low, high]} per row, and its width (B,)"""
        value, half = prediction, quantiles[0]
        rows = [{"interval": [v - half, v + half]} for v in value.tolist()]
        return rows, torch.full_like(value, 2 * half)

    def decode(self, prediction: Tensor, fused: Features, meta: dict[str, Tensor]) -> list[dict[str, Any]]:
        """(B,) -> {"prediction": value} per row"""
        return [{"prediction": value} for value in prediction.tolist()]

    def merge(self, prediction: Tensor, group: Tensor, count: int) -> Tensor:
        """Mean of the windows' values. (B,), (B,) -> (count,)"""
        member = F.one_hot(group, count).T.to(prediction.dtype)  # (count, B)
        return member @ prediction / member.sum(1)
