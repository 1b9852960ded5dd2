"""Late fusion, which averages the predictions from each input with trained weights and temperatures."""

from collections.abc import Sequence

import torch
from torch import nn

from mm.configurable import Configurable
from mm.fusion._tokens import mlp, presence
from mm.fusion.gated import gate
from mm.types import Features


class LateFusion(Configurable, nn.Module):
    """Average the logits from each present input, with a trained weight and a trained temperature per input.

    A fusion does not know the classes, so it averages vectors f_i, which an MLP per input computes. If a linear head
    with weight W and bias b reads this average, its logits are the average of the logits of one classifier per input,
    because the weights w_i add up to one:

        W (sum of w_i f_i / t_i) + b = sum of w_i (W f_i / t_i + b)

    The tokens of the result are the vectors f_i / t_i, from which a head can compute the logits of each input. The
    temperatures t_i are trained together with the model. The temperatures of `mm calibrate`, in contrast, are fitted on
    held-out rows (Guo et al. 2017).

    Args:
        inputs: Names of the inputs, in order.
        embed_dim: Width D of the inputs and of the result.
        hidden_dim: Width of the hidden layer of each MLP; None: `embed_dim`.
        dropout: Dropout probability of the MLPs.
    """

    def __init__(self, *, inputs: Sequence[str], embed_dim: int, hidden_dim: int | None = None, dropout: float = 0.0):
        super().__init__()
        self.inputs = list(inputs)
        self.networks = nn.ModuleList(mlp(embed_dim, hidden_dim or embed_dim, embed_dim, dropout) for _ in self.inputs)
        n = len(self.inputs)
        self.log_temperature = nn.Parameter(torch.zeros(n))  # its exponential is always positive
        # The softmax over one input is constant, so its weight would never get a gradient.
        self.weight = nn.Parameter(torch.zeros(n)) if n > 1 else None

    def forward(self, features: dict[str, Features]) -> Features:
        """Fuse the Features of each input, by name, into Features with one token per input, (B, N, D)."""
        present = presence(features, self.inputs)  # (B, N)
        values = [f(features[name].pooled) for f, name in zip(self.networks, self.inputs, strict=True)]
        tokens = torch.stack(values, dim=1) / self.log_temperature.exp().unsqueeze(-1)  # (B, N, D)
        logits = torch.zeros_like(self.log_temperature) if self.weight is None else self.weight
        pooled = gate(tokens, logits.view(1, -1, 1).expand_as(tokens), present)
        return Features(tokens, present, pooled, torch.full((*present.shape, 2), 0.5, device=present.device))
