"""Product of experts: each input says where the result lies and how sure it is."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mm.configurable import Configurable
from mm.fusion._tokens import presence
from mm.layers import single_token
from mm.types import Features

# Bounds of a log-variance: one input outweighs another at most 22,000 times, and no exponential overflows.
LOWEST, HIGHEST = -5.0, 5.0


def product_of_gaussians(mean: Tensor, log_variance: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of a standard normal times the Gaussians of the inputs that are present.

    mean, log_variance (B, N, D), present (B, N) bool -> (B, D), (B, D)
    """
    precision = (-log_variance).exp() * present.unsqueeze(-1)
    variance = 1 / (1 + precision.sum(1))
    return variance * (precision * mean).sum(1), variance


class ProductOfExpertsFusion(Configurable, nn.Module):
    """Multiply a Gaussian per present input with a standard normal (product of experts, MVAE, Wu & Goodman 2018).

    The pooled vector is the mean of the product. MVAE's decoders and its divergence from the prior are not part of the
    fusion: with `stochastic` alone, training makes the variance of the samples small.

    Args:
        inputs: Names of the inputs, in order.
        embed_dim: Width D of the inputs and of the result.
        stochastic: Whether training draws the pooled vector from the product instead of taking its mean.
        dropout: Dropout probability of the pooled vectors of the inputs.
    """

    def __init__(self, *, inputs: Sequence[str], embed_dim: int, stochastic: bool = False, dropout: float = 0.0):
        super().__init__()
        self.inputs = list(inputs)
        self.stochastic = stochastic
        self.drop = nn.Dropout(dropout)
        self.experts = nn.ModuleList(nn.Linear(embed_dim, 2 * embed_dim) for _ in self.inputs)

    def forward(self, features: dict[str, Features]) -> Features:
        """input name -> (B, T, D) -> tokens (B, 1, D)"""
        present = presence(features, self.inputs)  # (B, N)
        parameters = [f(self.drop(features[name].pooled)) for f, name in zip(self.experts, self.inputs, strict=True)]
        mean, log_variance = torch.stack(parameters, dim=1).float().chunk(2, dim=-1)  # (B, N, D) each
        fused, variance = product_of_gaussians(mean, log_variance.clamp(LOWEST, HIGHEST), present)
        if self.stochastic and self.training:
            fused = fused + variance.sqrt() * torch.randn_like(fused)
        return single_token(fused.to(parameters[0].dtype), present.any(1))
