"""Sum, mean or maximum of the inputs, without parameters."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mm.configurable import Configurable
from mm.fusion._tokens import anchor_of, presence
from mm.layers import single_token
from mm.types import Features

REDUCTIONS = ("sum", "mean", "max")


def reduce_present(values: Tensor, present: Tensor, reduce: str) -> Tensor:
    """Return the sum, mean or maximum over the present inputs.

    Args:
        values: One vector per input, (B, N, D).
        present: Whether each row has each input, (B, N) bool.
        reduce: `sum`, `mean` or `max`.

    Returns:
        The reduced vectors (B, D); zeros for rows without any input.
    """
    present = present.unsqueeze(-1)  # (B, N, 1)
    if reduce == "max":
        highest = values.masked_fill(~present, torch.finfo(values.dtype).min).amax(1)
        return highest.masked_fill(~present.any(1), 0.0)
    total = (values * present).sum(1)
    return total / present.sum(1).clamp(min=1) if reduce == "mean" else total


class SumFusion(Configurable, nn.Module):
    """Add the pooled vectors of the present inputs, or take their mean or maximum.

    The result has one token. With an anchor, it has the tokens, mask and position of the anchor instead, and each token
    is reduced together with the pooled vectors of the other inputs. The result of `mean` does not grow with the number
    of present inputs, unlike that of `sum`.

    Args:
        inputs: Names of the inputs, in order.
        reduce: `sum`, `mean` or `max` of the present inputs.
        anchor: Name of the input whose tokens the result has; None: the result has one token.

    Raises:
        ValueError: If `reduce` is unknown, or if the anchor is not one of the inputs.
    """

    def __init__(self, *, inputs: Sequence[str], reduce: str = "sum", anchor: str | None = None):
        super().__init__()
        if reduce not in REDUCTIONS:
            raise ValueError(f"model.fusion.reduce: got '{reduce}', wanted one of {', '.join(REDUCTIONS)}")
        self.inputs = list(inputs)
        self.reduce = reduce
        self.anchor = None if anchor is None else anchor_of(self.inputs, anchor)

    def forward(self, features: dict[str, Features]) -> Features:
        """Fuse the Features of each input, by name, into Features with one token, or with the tokens of the anchor."""
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
