"""Concatenation of the pooled vectors of all inputs, followed by an MLP."""

from collections.abc import Sequence

import torch
from torch import nn

from mm.configurable import Configurable
from mm.fusion._tokens import mlp, presence
from mm.layers import single_token
from mm.types import Features


class ConcatFusion(Configurable, nn.Module):
    """Concatenate the pooled vectors of the inputs, with zeros for absent inputs, and apply an MLP.

    Args:
        inputs: Names of the inputs, in order.
        embed_dim: Width D of the inputs and of the result.
        hidden_dim: Width of the hidden layer of the MLP; None: `embed_dim`.
        dropout: Dropout probability of the MLP.
    """

    def __init__(self, *, inputs: Sequence[str], embed_dim: int, hidden_dim: int | None = None, dropout: float = 0.0):
        super().__init__()
        self.inputs = list(inputs)
        self.mlp = mlp(len(self.inputs) * embed_dim, hidden_dim or embed_dim, embed_dim, dropout)

    def forward(self, features: dict[str, Features]) -> Features:
        """Fuse the Features of each input, by name, into Features with one token, (B, 1, D)."""
        pooled = torch.cat([features[name].pooled for name in self.inputs], dim=-1)  # (B, inputs * D)
        return single_token(self.mlp(pooled), presence(features, self.inputs).any(1))
