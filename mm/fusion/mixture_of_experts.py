"""Mixture of experts, with one expert network per input and a gate that computes their weights."""

from collections.abc import Sequence

import torch
from torch import nn

from mm.configurable import Configurable
from mm.fusion._tokens import mlp, presence
from mm.fusion.gated import gate
from mm.layers import single_token
from mm.types import Features


class MixtureOfExpertsFusion(Configurable, nn.Module):
    """Average the vectors of one expert per input, weighted by a softmax over the present inputs (Jacobs et al. 1991).

    The weights are computed from all inputs. Each input has one weight; in `GatedFusion`, each feature of each input
    has its own weight.

    Args:
        inputs: Names of the inputs, in order.
        embed_dim: Width D of the inputs and of the result.
        hidden_dim: Width of the hidden layer of each expert; None: `embed_dim`.
        dropout: Dropout probability of the experts.
    """

    def __init__(self, *, inputs: Sequence[str], embed_dim: int, hidden_dim: int | None = None, dropout: float = 0.0):
        super().__init__()
        self.inputs = list(inputs)
        self.experts = nn.ModuleList(mlp(embed_dim, hidden_dim or embed_dim, embed_dim, dropout) for _ in self.inputs)
        n = len(self.inputs)
        # The softmax over one input is constant, so its gate would never get a gradient.
        self.gate = nn.Linear(n * embed_dim, n) if n > 1 else None

    def forward(self, features: dict[str, Features]) -> Features:
        """Fuse the Features of each input, by name, into Features with one token, (B, 1, D)."""
        pooled = [features[name].pooled for name in self.inputs]
        present = presence(features, self.inputs)  # (B, N)
        values = torch.stack([expert(x) for expert, x in zip(self.experts, pooled, strict=True)], dim=1)  # (B, N, D)
        logits = values.new_zeros(present.shape) if self.gate is None else self.gate(torch.cat(pooled, dim=-1))
        return single_token(gate(values, logits.unsqueeze(-1), present), present.any(1))
