"""Product of experts, in which each input contributes a Gaussian distribution of the result."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mm.configurable import Configurable
from mm.fusion._tokens import presence
from mm.layers import single_token
from mm.types import Features

# Bounds of a log-variance: the weight of an input is at most 22,000 times that of another, and exp can't overflow.
LOWEST, HIGHEST = -5.0, 5.0


def product_of_gaussians(mean: Tensor, log_variance: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean and variance, (B, D) each, of a standard normal times the Gaussians of the present inputs.

    Args:
        mean: Mean of the Gaussian of each input, (B, N, D).
        log_variance: Logarithm of its variance, (B, N, D).
        present: Whether each row has each input, (B, N) bool.
    """
    precision = (-log_variance).exp() * present.unsqueeze(-1)
    variance = 1 / (1 + precision.sum(1))
    return variance * (precision * mean).sum(1), variance


class ProductOfExpertsFusion(Configurable, nn.Module):
    """Multiply a standard normal with a Gaussian per present input (product of experts, MVAE, Wu and Goodman 2018).

    The pooled vector is the mean of the product. The decoders of MVAE and its KL divergence from the prior are not part
    of this fusion. Without them, `stochastic` training makes the variance of the samples small.

    Args:
        inputs: Names of the inputs, in order.
        embed_dim: Width D of the inputs and of the result.
        stochastic: Whether to sample the pooled vector from the product in training, instead of taking its mean.
        dropout: Dropout probability of the pooled vectors of the inputs.
    """

    def __init__(self, *, inputs: Sequence[str], embed_dim: int, stochastic: bool = False, dropout: float = 0.0):
        super().__init__()
        self.inputs = list(inputs)
        self.stochastic = stochastic
        self.drop = nn.Dropout(dropout)
        self.experts = nn.ModuleList(nn.Linear(embed_dim, 2 * embed_dim) for _ in self.inputs)

    def forward(self, features: dict[str, Features]) -> Features:
        """Fuse the Features of each input, by name, into Features with one token, (B, 1, D)."""
        present = presence(features, self.inputs)  # (B, N)
        parameters = [f(self.drop(features[name].pooled)) for f, name in zip(self.experts, self.inputs, strict=True)]
        mean, log_variance = torch.stack(parameters, dim=1).float().chunk(2, dim=-1)  # (B, N, D) each
        fused, variance = product_of_gaussians(mean, log_variance.clamp(LOWEST, HIGHEST), present)
        if self.stochastic and self.training:
            fused = fused + variance.sqrt() * torch.randn_like(fused)
        return single_token(fused.to(parameters[0].dtype), present.any(1))
