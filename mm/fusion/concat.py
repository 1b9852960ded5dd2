"""Concatenation: the pooled vectors of all inputs side by side, then an MLP."""

from collections.abc import Sequence

import torch
from torch import nn

from mm.layers import single_token
from mm.types import Features


class ConcatFusion(nn.Module):
    """Concatenate the pooled vectors, zeros where an input is absent, and mix them.

    inputs: their names, in order; embed_dim: width of the inputs and of the result; hidden_dim: of the MLP;
    None: embed_dim.
    """

    def __init__(self, *, inputs: Sequence[str], embed_dim: int, hidden_dim: int | None = None, dropout: float = 0.0):
        super().__init__()
        self.inputs = list(inputs)
        hidden_dim = hidden_dim or embed_dim
        self.mlp = nn.Sequential(
            nn.Linear(len(self.inputs) * embed_dim, hidden_dim),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(hidden_dim, embed_dim),
        )

    def forward(self, features: dict[str, Features]) -> Features:
        """input name -> (B, T, D) -> tokens (B, 1, D)"""
        pooled = torch.cat([features[name].pooled for name in self.inputs], dim=-1)  # (B, inputs * D)
        present = torch.stack([features[name].mask.any(1) for name in self.inputs]).any(0)  # (B,)
        return single_token(self.mlp(pooled), present)
