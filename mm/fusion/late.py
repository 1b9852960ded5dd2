"""Late fusion: the mean of what a classifier of each input says, with learnt weights and temperatures."""

from collections.abc import Sequence

import torch
from torch import nn

from mm.configurable import Configurable
from mm.fusion._tokens import mlp, presence
from mm.fusion.gated import gate
from mm.types import Features


class LateFusion(Configurable, nn.Module):
    """Average the logits of the inputs that are present, each divided by a temperature, by learnt weights.

    Temperatures are learnt with all the rest, a number per input for how sure it is; one that is fitted on rows that
    were not learnt from (Guo 2017) is `mm calibrate`'s. A fusion knows no classes, so it averages vectors: each input's
    own MLP makes one. A head is linear, hence this is the average of the logits of one classifier per input: W (sum of
    w_i f_i / t_i) + b = sum of w_i (W f_i / t_i + b), as the weights add up to one. The tokens are these vectors f_i /
    t_i: a head makes each input's logits of them.
    inputs: their names, in order; embed_dim: width of the inputs and of the result; hidden_dim: of the MLPs;
    None: embed_dim.
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
