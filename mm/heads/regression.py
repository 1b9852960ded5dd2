"""Head for targets that are a number."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mm.heads.base import Head
from mm.metrics.regression import widest
from mm.predictions import Scalar
from mm.types import Features

LOSSES = {"huber": F.huber_loss, "mse": F.mse_loss, "mae": F.l1_loss}


class RegressionHead(Head):
    """Predict a number, in the units of the data, by a linear layer on the pooled vector.

    A target that is NaN is unlabelled. Predictions and targets are float64, because float32 has a resolution of only
    128 at 1.7e9, the size of Unix times. Only the standardised error is float32.

    Args:
        embed_dim: Width D of the fused features.
        mean: Mean of the target over the training rows.
        std: Standard deviation of the target over the training rows.
        criterion: Loss of the error divided by `std`: `huber`, `mse` or `mae`.
        dropout: Dropout probability of the pooled vector.
        weight: Weight of this head's loss in the sum over several heads.

    Raises:
        ValueError: If the criterion is unknown, or if the target does not vary.
    """

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
        super().__init__(weight=weight)
        if criterion not in LOSSES:
            raise ValueError(f"criterion: got '{criterion}', wanted one of {', '.join(LOSSES)}")
        if not std > 0:
            raise ValueError(
                f"std: got {std}, wanted more than 0: the training rows have one single value, nothing to learn"
            )
        self.mean = mean
        self.std = std
        self.criterion = criterion
        self.drop = nn.Dropout(dropout)
        self.linear = nn.Linear(embed_dim, 1)

    def forward(self, fused: Features, target: Tensor | None = None) -> Scalar:
        """Return the predicted numbers (B,) of the pooled vectors (B, D)."""
        value = self.linear(self.drop(fused.pooled)).squeeze(-1)
        return Scalar(value.to(widest(value.device)) * self.std + self.mean)

    def loss(self, prediction: Scalar, target: Tensor, fused: Features) -> tuple[Tensor, Tensor]:
        """Return the sum of the losses of the standardised errors, and the number of labelled rows.

        Args:
            prediction: Predicted numbers, (B,).
            target: Targets, (B,); NaN for unlabelled rows.
            fused: The fused Features, which this loss does not use.
        """
        labelled = ~target.isnan()
        error = ((prediction.value - target.nan_to_num()) / self.std).float()
        loss = LOSSES[self.criterion](error, torch.zeros_like(error), reduction="none")
        return (loss * labelled).sum(), labelled.sum().float()
