"""Low-rank tensor fusion, which maps the outer product of all inputs without computing it."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mm.configurable import Configurable
from mm.fusion._tokens import presence
from mm.layers import single_token
from mm.types import Features


def low_rank(vectors: Sequence[Tensor], factors: Sequence[Tensor]) -> Tensor:
    """Apply a linear map of rank R to the outer product of the vectors, each with a 1 appended.

    The weight of the map is the sum of R outer products of one factor per vector, so the outer product of the vectors
    is never computed.

    Args:
        vectors: N vectors, (B, D).
        factors: N factors, (R, D + 1, E).

    Returns:
        The mapped vectors, (B, E).
    """
    product = torch.ones((), dtype=vectors[0].dtype, device=vectors[0].device)
    for x, factor in zip(vectors, factors, strict=True):
        product = product * torch.einsum("bd,rde->bre", F.pad(x, (0, 1), value=1.0), factor)  # (B, R, E)
    return product.sum(1)


class LowRankTensorFusion(Configurable, nn.Module):
    """Apply a low-rank linear map to the outer product of the inputs, each with a 1 appended (LMF, Liu et al. 2018).

    The cost is linear in the number of inputs. An absent input contributes only its appended 1, as in `TensorFusion`.

    Args:
        inputs: Names of the inputs, in order.
        embed_dim: Width D of the inputs and of the result.
        rank: Rank of the weight.
        dropout: Dropout probability of the result.
    """

    factors: Sequence[nn.Parameter]  # an nn.ParameterList

    def __init__(self, *, inputs: Sequence[str], embed_dim: int, rank: int = 4, dropout: float = 0.0):
        super().__init__()
        self.inputs = list(inputs)
        # Parameters in a plain list would not be registered, so that no optimizer would train them.
        self.factors = nn.ParameterList(torch.empty(rank, embed_dim + 1, embed_dim) for _ in self.inputs)  # type: ignore
        self.bias = nn.Parameter(torch.empty(embed_dim))
        self.drop = nn.Dropout(dropout)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialise the weights such that each input contributes a factor 1 + w x, which is 1 for an absent input.

        Each w x has variance 1 / N if x has variance 1. The variance of the result is therefore (1 + 1 / N) ** N - 1,
        which is below 1.72 for any number of inputs N.
        """
        n = len(self.factors)
        rank, rows, _ = self.factors[0].shape
        scale = rank ** (-0.5 / n)  # R products of N factors: R * scale ** (2 N) = 1
        for factor in self.factors:
            nn.init.normal_(factor, std=scale * ((rows - 1) * n) ** -0.5)
            nn.init.constant_(factor[:, -1], scale)
        nn.init.constant_(self.bias, -(rank**0.5))  # cancels the product of the ones, R * scale ** N

    def forward(self, features: dict[str, Features]) -> Features:
        """Fuse the Features of each input, by name, into Features with one token, (B, 1, D)."""
        pooled = [features[name].pooled for name in self.inputs]  # zeros where absent
        fused = low_rank(pooled, self.factors) + self.bias
        return single_token(self.drop(fused), presence(features, self.inputs).any(1))
