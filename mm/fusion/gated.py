"""Gated multimodal unit: learnt gates weigh the inputs that are present."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mm.configurable import Configurable
from mm.fusion._tokens import presence
from mm.layers import single_token
from mm.types import Features


def gate(values: Tensor, logits: Tensor, present: Tensor) -> Tensor:
    """Sum of values by a softmax over the present inputs; zeros where there is none.

    values, logits (B, N, D), present (B, N) bool -> (B, D)
    """
    # -1e9 and not -inf: a row without any input stays finite, and the product with `present` empties it.
    weight = logits.float().masked_fill(~present.unsqueeze(-1), -1e9).softmax(1).to(values.dtype)
    return (values * weight * present.unsqueeze(-1)).sum(1)


class GatedFusion(Configurable, nn.Module):
    """Weigh each feature of the present inputs by gates that are computed from all inputs (GMU, Arevalo et al. 2017).

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
        # The softmax over one input is constant: its gate would never see a gradient.
        self.gates = nn.Linear(n * embed_dim, n * embed_dim) if n > 1 else None
        self.drop = nn.Dropout(dropout)

    def forward(self, features: dict[str, Features]) -> Features:
        """input name -> (B, T, D) -> tokens (B, 1, D)"""
        pooled = [features[name].pooled for name in self.inputs]
        present = presence(features, self.inputs)  # (B, N)
        values = torch.stack([p(x).tanh() for p, x in zip(self.projections, pooled, strict=True)], dim=1)  # (B, N, D)
        if self.gates is None:
            logits = torch.zeros_like(values)
        else:
            logits = self.gates(torch.cat(pooled, dim=-1)).unflatten(-1, values.shape[1:])
        return single_token(self.drop(gate(values, logits, present)), present.any(1))
