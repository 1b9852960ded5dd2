"""Gated multimodal unit, which weights the present inputs by trained gates."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mm.configurable import Configurable
from mm.fusion._tokens import presence
from mm.layers import single_token
from mm.types import Features


def gate(values: Tensor, logits: Tensor, present: Tensor) -> Tensor:
    """Return the mean of the values of the present inputs, weighted by a softmax over these inputs.

    Args:
        values: One vector per input, (B, N, D).
        logits: Logits of the weights, (B, N, D).
        present: Whether each row has each input, (B, N) bool.

    Returns:
        The weighted mean (B, D); zeros for rows without any input.
    """
    # With -inf, a row without any input would be NaN. With -1e9 it is finite, and zero after `* present`.
    weight = logits.float().masked_fill(~present.unsqueeze(-1), -1e9).softmax(1).to(values.dtype)
    return (values * weight * present.unsqueeze(-1)).sum(1)


class GatedFusion(Configurable, nn.Module):
    """Weight each feature of the present inputs by gates that are computed from all inputs (GMU, Arevalo et al. 2017).

    Args:
        inputs: Names of the inputs, in order.
        embed_dim: Width D of the inputs and of the result.
        dropout: Dropout probability of the result.
    """

    def __init__(self, *, inputs: Sequence[str], embed_dim: int, dropout: float = 0.0):
        super().__init__()
        self.inputs = list(inputs)
        self.projections = nn.ModuleList(nn.Linear(embed_dim, embed_dim) for _ in self.inputs)
        n = len(self.inputs)
        # The softmax over one input is constant, so its gate would never get a gradient.
        self.gates = nn.Linear(n * embed_dim, n * embed_dim) if n > 1 else None
        self.drop = nn.Dropout(dropout)

    def forward(self, features: dict[str, Features]) -> Features:
        """Fuse the Features of each input, by name, into Features with one token, (B, 1, D)."""
        pooled = [features[name].pooled for name in self.inputs]
        present = presence(features, self.inputs)  # (B, N)
        values = torch.stack([p(x).tanh() for p, x in zip(self.projections, pooled, strict=True)], dim=1)  # (B, N, D)
        if self.gates is None:
            logits = torch.zeros_like(values)
        else:
            logits = self.gates(torch.cat(pooled, dim=-1)).unflatten(-1, values.shape[1:])
        return single_token(self.drop(gate(values, logits, present)), present.any(1))
