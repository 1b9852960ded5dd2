"""Sum, mean or maximum of the pooled vectors, or of an anchor's tokens and the others: no parameters."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mm.configurable import Configurable
from mm.fusion._tokens import anchor_of, presence
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


class SumFusion(Configurable, nn.Module):
    """Add the pooled vectors of the present inputs, or take their mean or maximum.

    With an anchor the result has the anchor's tokens, mask and position; each token is reduced with the pooled vectors
    of the other inputs. The expected length of the mean does not depend on the number of present inputs.

    Args:
        inputs: Names of the inputs, in order.
        reduce: `sum`, `mean` or `max` of the present inputs.
        anchor: Name of an input whose tokens the result has; None: the result has one token.

    Raises:
        ValueError: If `reduce` is none of these, or the anchor is no input.
    """

    def __init__(self, *, inputs: Sequence[str], reduce: str = "sum", anchor: str | None = None):
        super().__init__()
        if reduce not in REDUCTIONS:
            raise ValueError(f"model.fusion.reduce: got '{reduce}', wanted one of {', '.join(REDUCTIONS)}")
        self.inputs = list(inputs)
        self.reduce = reduce
        self.anchor = None if anchor is None else anchor_of(self.inputs, anchor)

    def forward(self, features: dict[str, Features]) -> Features:
        """input name -> (B, T, D) -> tokens (B, 1, D), or those of the anchor (B, T, D)"""
        present = presence(features, self.inputs)
        values = torch.stack([features[name].pooled for name in self.inputs], dim=1)  # (B, N, D)
        pooled = reduce_present(values, present, self.reduce)
        if self.anchor is None:
            return single_token(pooled, present.any(1))
        anchor = features[self.anchor]
        place = self.inputs.index(self.anchor)
        length = anchor.tokens.shape[1]
        each = values.unsqueeze(1).repeat(1, length, 1, 1)  # (B, T, N, D)
        each[:, :, place] = anchor.tokens
        there = present.unsqueeze(1).expand(-1, length, -1)  # (B, T, N)
        tokens = reduce_present(each.flatten(0, 1), there.flatten(0, 1), self.reduce).unflatten(0, (-1, length))
        return Features(tokens, anchor.mask, pooled, anchor.position)
