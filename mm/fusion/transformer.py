"""Transformer over the tokens of all inputs."""

from collections.abc import Sequence

import torch
from torch import nn

from mm.configurable import Configurable
from mm.fusion._tokens import TokenEmbedding
from mm.layers import TransformerBlock
from mm.types import Features


class TransformerFusion(Configurable, nn.Module):
    """Fuse the tokens of all inputs with one transformer (single stream, as in VisualBERT, Li et al. 2019).

    Each token attends to all real tokens of all inputs. The pooled vector is the output of a trained class token. The
    tokens of the result are the tokens of all inputs, in order.

    Args:
        inputs: Names of the inputs, in order.
        embed_dim: Width D of the inputs and of the result.
        num_layers: Number of transformer layers.
        num_heads: Number of attention heads; it must divide `embed_dim`.
        dropout: Dropout probability.

    Raises:
        ValueError: If `num_heads` does not divide `embed_dim`.
    """

    def __init__(
        self, *, inputs: Sequence[str], embed_dim: int, num_layers: int = 2, num_heads: int = 4, dropout: float = 0.1
    ):
        super().__init__()
        self.inputs = list(inputs)
        self.embedding = TokenEmbedding(self.inputs, embed_dim)
        self.class_token = nn.Parameter(torch.randn(1, 1, embed_dim) * 0.02)
        self.blocks = nn.ModuleList(TransformerBlock(embed_dim, num_heads, dropout) for _ in range(num_layers))
        self.norm = nn.LayerNorm(embed_dim)

    def forward(self, features: dict[str, Features]) -> Features:
        """Fuse the Features of each input, by name, into Features with the tokens of all inputs, (B, sum of T, D)."""
        tokens = self.embedding(features)
        mask = torch.cat([features[name].mask for name in self.inputs], dim=1)
        x = torch.cat([self.class_token.expand(mask.shape[0], -1, -1), *(tokens[n] for n in self.inputs)], dim=1)
        attended = torch.cat([torch.ones_like(mask[:, :1]), mask], dim=1)  # the class token is never absent
        for block in self.blocks:
            x = block(x, attended)
        x = self.norm(x)
        return Features(
            tokens=x[:, 1:],
            mask=mask,
            pooled=x[:, 0] * mask.any(1, keepdim=True),
            position=torch.cat([features[name].position for name in self.inputs], dim=1),
        )
