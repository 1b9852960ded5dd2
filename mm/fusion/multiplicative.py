"""Multiplicative interaction, a bilinear form of each pair of inputs."""

from collections.abc import Sequence
from itertools import combinations

import torch
from torch import Tensor, nn

from mm.configurable import Configurable
from mm.fusion._tokens import presence
from mm.layers import single_token
from mm.types import Features


def bilinear(x: Tensor, y: Tensor, weight: Tensor) -> Tensor:
    """Return x^T W_d y for each output d, (B, D).

    Args:
        x: Vectors, (B, P).
        y: Vectors, (B, P).
        weight: Matrices W_d, (D, P, P).
    """
    return torch.einsum("bp,dpq,bq->bd", x, weight, y)


class MultiplicativeFusion(Configurable, nn.Module):
    """Compute x^T W y + U x + V y + b with a W for each pair of projected inputs (Jayakumar et al. 2020).

    A pair adds nothing if one of its inputs is absent.

    Args:
        inputs: Names of the inputs, in order.
        embed_dim: Width D of the inputs and of the result.
        projection_dim: Width P of the projection of each input; W has D * P ** 2 weights for each pair.
        dropout: Dropout probability of the result.
    """

    def __init__(self, *, inputs: Sequence[str], embed_dim: int, projection_dim: int = 32, dropout: float = 0.0):
        super().__init__()
        self.inputs = list(inputs)
        self.linear = nn.Linear(len(self.inputs) * embed_dim, embed_dim)
        self.pairs = list(combinations(range(len(self.inputs)), 2))
        # With one input there is no pair, so its projection would never get a gradient.
        projected = self.inputs if self.pairs else []
        self.projections = nn.ModuleList(nn.Linear(embed_dim, projection_dim) for _ in projected)
        self.weights = nn.ParameterList(  # with this standard deviation a sum of P ** 2 products has variance 1
            torch.randn(embed_dim, projection_dim, projection_dim) / projection_dim for _ in self.pairs
        )
        self.drop = nn.Dropout(dropout)

    def forward(self, features: dict[str, Features]) -> Features:
        """Fuse the Features of each input, by name, into Features with one token, (B, 1, D)."""
        pooled = [features[name].pooled for name in self.inputs]  # zeros where absent
        present = presence(features, self.inputs)  # (B, N)
        fused = self.linear(torch.cat(pooled, dim=-1))
        small = [project(x) * present[:, i : i + 1] for i, (project, x) in enumerate(zip(self.projections, pooled))]
        for (i, j), weight in zip(self.pairs, self.weights, strict=True):
            fused = fused + bilinear(small[i], small[j], weight)
        return single_token(self.drop(fused), present.any(1))
