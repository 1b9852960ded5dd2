"""Perceiver: a few learnt latents read the tokens of all inputs."""

from collections.abc import Sequence

import torch
from torch import nn

from mm.configurable import Configurable
from mm.fusion._tokens import TokenEmbedding
from mm.layers import TransformerBlock
from mm.types import Features


class PerceiverFusion(Configurable, nn.Module):
    """Latents attend to every real token of every input, then to each other, in turns (Perceiver, Jaegle 2021).

    The cost is linear in the number of tokens. The tokens of the result are the latents; they lie nowhere in the
    inputs, so their position is the middle. The pooled vector is their mean.
    inputs: their names, in order; embed_dim: width of the inputs and of the result; latents: how many.
    Errors: ValueError where `heads` does not divide `embed_dim`.
    """

    def __init__(
        self,
        *,
        inputs: Sequence[str],
        embed_dim: int,
        latents: int = 16,
        layers: int = 2,
        heads: int = 4,
        dropout: float = 0.0,
    ):
        super().__init__()
        self.inputs = list(inputs)
        self.embedding = TokenEmbedding(self.inputs, embed_dim)
        self.latents = nn.Parameter(torch.randn(1, latents, embed_dim) * 0.02)
        self.context_norm = nn.LayerNorm(embed_dim)
        self.cross_blocks = nn.ModuleList(TransformerBlock(embed_dim, heads, dropout) for _ in range(layers))
        self.blocks = nn.ModuleList(TransformerBlock(embed_dim, heads, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(embed_dim)

    def forward(self, features: dict[str, Features]) -> Features:
        """input name -> (B, T, D) -> tokens (B, latents, D)"""
        embedded = self.embedding(features)
        context = self.context_norm(torch.cat([embedded[name] for name in self.inputs], dim=1))  # (B, S, D)
        context_mask = torch.cat([features[name].mask for name in self.inputs], dim=1)
        mask = context_mask.any(1, keepdim=True).expand(-1, self.latents.shape[1])  # (B, L)
        x = self.latents.expand(len(mask), -1, -1)
        for cross, own in zip(self.cross_blocks, self.blocks, strict=True):
            x = cross(x, context_mask, context)
            x = own(x, mask)
        x = self.norm(x)
        position = torch.full((*mask.shape, 2), 0.5, device=mask.device)
        return Features(x, mask, x.mean(1) * mask[:, :1], position)
