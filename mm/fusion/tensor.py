"""Tensor fusion, an MLP on the outer product of all inputs."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mm.configurable import Configurable
from mm.fusion._tokens import presence
from mm.layers import single_token
from mm.types import Features

LIMIT = 2**24  # maximum number of weights of the first layer of the MLP: 64 MiB in float32


def outer(vectors: Sequence[Tensor]) -> Tensor:
    """Return the outer product of N vectors (B, P), each with a 1 appended, flattened to (B, (P + 1) ** N).

    Because of the appended ones, it contains the products of the entries of every subset of the vectors.
    """
    product = torch.ones_like(vectors[0][:, :1])  # (B, 1)
    for x in vectors:
        product = (product.unsqueeze(-1) * F.pad(x, (0, 1), value=1.0).unsqueeze(1)).flatten(1)
    return product


class TensorFusion(Configurable, nn.Module):
    """Apply an MLP to the outer product of the inputs, each projected and with a 1 appended (TFN, Zadeh et al. 2017).

    An absent input contributes only its appended 1, so that the products of the other inputs are unchanged.

    Args:
        inputs: Names of the inputs, in order.
        embed_dim: Width D of the inputs and of the result.
        projection_dim: Width P of the projection of each input; the product of N inputs has (P + 1) ** N entries.
        dropout: Dropout probability of the product.

    Raises:
        ValueError: If the first layer of the MLP would have more than 2 ** 24 weights.
    """

    def __init__(self, *, inputs: Sequence[str], embed_dim: int, projection_dim: int = 16, dropout: float = 0.0):
        super().__init__()
        self.inputs = list(inputs)
        n = len(self.inputs)
        size = (projection_dim + 1) ** n
        if size * embed_dim > LIMIT:
            most = max(p for p in range(projection_dim) if (p + 1) ** n * embed_dim <= LIMIT)
            raise ValueError(
                f"model.fusion.projection_dim: got {projection_dim}, with which the product of {n} inputs has {size:,} "
                f"entries and its layer {size * embed_dim:,} weights, wanted at most {LIMIT:,}; set it to {most}, or "
                "choose model/fusion=low_rank_tensor"
            )
        self.projections = nn.ModuleList(nn.Linear(embed_dim, projection_dim) for _ in self.inputs)
        self.mlp = nn.Sequential(
            nn.Dropout(dropout), nn.Linear(size, embed_dim), nn.GELU(), nn.Linear(embed_dim, embed_dim)
        )

    def forward(self, features: dict[str, Features]) -> Features:
        """Fuse the Features of each input, by name, into Features with one token, (B, 1, D)."""
        present = presence(features, self.inputs)  # (B, N)
        pooled = [project(features[name].pooled) for project, name in zip(self.projections, self.inputs, strict=True)]
        product = outer([x * present[:, i : i + 1] for i, x in enumerate(pooled)])
        return single_token(self.mlp(product), present.any(1))
