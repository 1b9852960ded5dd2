"""Perceiver, in which a few trained latent vectors attend to the tokens of all inputs."""

from collections.abc import Sequence

import torch
from torch import nn

from mm.configurable import Configurable
from mm.fusion._tokens import TokenEmbedding
from mm.layers import TransformerBlock
from mm.types import Features


class PerceiverFusion(Configurable, nn.Module):
    """Fuse the inputs into a few trained latent vectors (Perceiver, Jaegle et al. 2021).

    In each layer the latents attend to all real tokens of all inputs, then to each other. The cost is linear in the
    number of tokens. The tokens of the result are the latents, whose position is the middle of the input. The pooled
    vector is the mean of the latents.

    Args:
        inputs: Names of the inputs, in order.
        embed_dim: Width D of the inputs and of the result.
        num_latents: Number L of latent vectors.
        num_layers: Number of pairs of cross-attention and self-attention layers.
        num_heads: Number of attention heads; it must divide `embed_dim`.
        dropout: Dropout probability.

    Raises:
        ValueError: If `num_heads` does not divide `embed_dim`.
    """

    def __init__(
        self,
        *,
        inputs: Sequence[str],
        embed_dim: int,
        num_latents: int = 16,
        num_layers: int = 2,
        num_heads: int = 4,
        dropout: float = 0.1,
    ):
        super().__init__()
        self.inputs = list(inputs)
        self.embedding = TokenEmbedding(self.inputs, embed_dim)
        self.latents = nn.Parameter(torch.randn(1, num_latents, embed_dim) * 0.02)
        self.context_norm = nn.LayerNorm(embed_dim)
        self.cross_blocks = nn.ModuleList(TransformerBlock(embed_dim, num_heads, dropout) for _ in range(num_layers))
        self.blocks = nn.ModuleList(TransformerBlock(embed_dim, num_heads, dropout) for _ in range(num_layers))
        self.norm = nn.LayerNorm(embed_dim)

    def forward(self, features: dict[str, Features]) -> Features:
        """Fuse the Features of each input, by name, into Features with the latents as tokens, (B, L, D)."""
        embedded = self.embedding(features)
        context = self.context_norm(torch.cat([embedded[name] for name in self.inputs], dim=1))  # (B, S, D)
        context_mask = torch.cat([features[name].mask for name in self.inputs], dim=1)
        mask = context_mask.any(1, keepdim=True).expand(-1, self.latents.shape[1])  # (B, L)
        x = self.latents.expand(len(mask), -1, -1)
        for cross_block, block in zip(self.cross_blocks, self.blocks, strict=True):
            x = cross_block(x, context_mask, context)
            x = block(x, mask)
        x = self.norm(x)
        position = torch.full((*mask.shape, 2), 0.5, device=mask.device)
        return Features(x, mask, x.mean(1) * mask[:, :1], position)
