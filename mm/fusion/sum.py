"""Sum, mean or maximum of the pooled vectors: no parameters."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mm.fusion._tokens import presence
from mm.layers import single_token
from mm.types import Features

REDUCTIONS = ("sum", "mean", "max")


def reduce_present(values: Tensor, present: Tensor, reduce: str) -> Tensor:
    """Sum, mean or maximum over the inputs that are present; zeros where there is none.

    values (B, N, D), present (B, N) bool -> (B, D)
    """
    present = present.unsqueeze(-1)  # (B, N, 1)
    if reduce == "max":
        highest = values.masked_fill(~present, torch.finfo(values.dtype).min).amax(1)
        return highest.masked_fill(~present.any(1), 0.0)
    total = (values * present).sum(1)
    return total / present.sum(1).clamp(min=1) if reduce == "mean" else total


class SumFusion(nn.Module):
    """Add the pooled vectors of the inputs that are present, or take their mean or maximum.

    The mean is as long for one input as for all. inputs: their names; reduce: sum, mean or max.
    Errors: ValueError for another `reduce`.
    """

    def __init__(self, *, inputs: Sequence[str], reduce: str = "sum"):
        super().__init__()
        if reduce not in REDUCTIONS:
            raise ValueError(f"model.fusion.reduce: got '{reduce}', wanted one of {', '.join(REDUCTIONS)}")
        self.inputs = list(inputs)
        self.reduce = reduce

    def forward(self, features: dict[str, Features]) -> Features:
        """input name -> (B, T, D) -> tokens (B, 1, D)"""
        present = presence(features, self.inputs)
        values = torch.stack([features[name].pooled for name in self.inputs], dim=1)  # (B, N, D)
        return single_token(reduce_present(values, present, self.reduce), present.any(1))
