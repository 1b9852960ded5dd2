"""Late fusion: the mean of what a classifier of each input says, with learnt weights and temperatures."""

from collections.abc import Sequence

import torch
from torch import nn

from mm.configurable import Configurable
from mm.fusion._tokens import mlp, presence
from mm.fusion.gated import gate
from mm.types import Features


class LateFusion(Configurable, nn.Module):
    """Average the logits of the present inputs, each divided by a learnt temperature, with learnt weights.

    The temperatures are trained with the rest of the model, unlike those that `mm calibrate` fits on held-out rows (Guo
    et al. 2017). A fusion knows no classes, so it averages vectors f_i, which an MLP per input computes. A linear head
    then averages the logits of one classifier per input: W (sum of w_i f_i / t_i) + b = sum of w_i (W f_i / t_i + b),
    as the weights add up to one. The tokens of the result are the vectors f_i / t_i, of which a head computes the
    logits of each input.

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
        self.log_temperature = nn.Parameter(torch.zeros(n))  # the logarithm: a temperature stays positive
        # The softmax over one input is constant: its weight would never see a gradient.
        self.weight = nn.Parameter(torch.zeros(n)) if n > 1 else None

    def forward(self, features: dict[str, Features]) -> Features:
        """input name -> (B, T, D) -> tokens (B, inputs, D)"""
        present = presence(features, self.inputs)  # (B, N)
        values = [f(features[name].pooled) for f, name in zip(self.networks, self.inputs, strict=True)]
        tokens = torch.stack(values, dim=1) / self.log_temperature.exp().unsqueeze(-1)  # (B, N, D)
        logits = torch.zeros_like(self.log_temperature) if self.weight is None else self.weight
        pooled = gate(tokens, logits.view(1, -1, 1).expand_as(tokens), present)
        return Features(tokens, present, pooled, torch.full((*present.shape, 2), 0.5, device=present.device))
