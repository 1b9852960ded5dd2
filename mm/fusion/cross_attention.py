"""Cross-attention from the tokens of one input to the tokens of the other inputs."""

from collections.abc import Sequence

import torch
from torch import nn

from mm.configurable import Configurable
from mm.fusion._tokens import TokenEmbedding, anchor_of
from mm.layers import Attention, TransformerBlock, masked_mean
from mm.types import Features


class CrossAttentionFusion(Configurable, nn.Module):
    """Let the tokens of one input, the anchor, attend to the tokens of the other inputs (MulT, Tsai et al. 2019).

    The result has the tokens, mask and position of the anchor. The pooled vector is the sum of two vectors: the mean of
    the anchor's tokens, and the attention of a trained query to the tokens of all inputs. A row without the anchor
    therefore has a pooled vector too. With a single input, the anchor attends to itself.

    Args:
        inputs: Names of the inputs, in order.
        embed_dim: Width D of the inputs and of the result.
        anchor: Name of the anchor; None: the first input.
        num_layers: Number of cross-attention layers.
        num_heads: Number of attention heads; it must divide `embed_dim`.
        dropout: Dropout probability.

    Raises:
        ValueError: If `num_heads` does not divide `embed_dim`, or if the anchor is not one of the inputs.
    """

    def __init__(
        self,
        *,
        inputs: Sequence[str],
        embed_dim: int,
        anchor: str | None = None,
        num_layers: int = 2,
        num_heads: int = 4,
        dropout: float = 0.1,
    ):
        super().__init__()
        self.inputs = list(inputs)
        self.anchor = anchor_of(self.inputs, anchor)
        self.others = [name for name in self.inputs if name != self.anchor] or [self.anchor]
        self.embedding = TokenEmbedding(self.inputs, embed_dim)
        self.blocks = nn.ModuleList(TransformerBlock(embed_dim, num_heads, dropout) for _ in range(num_layers))
        self.norm = nn.LayerNorm(embed_dim)
        self.context_norm = nn.LayerNorm(embed_dim)
        self.query = nn.Parameter(torch.randn(1, 1, embed_dim) * 0.02)
        self.pool = Attention(embed_dim, num_heads, dropout)

    def forward(self, features: dict[str, Features]) -> Features:
        """Fuse the Features of each input, by name, into Features with the anchor's tokens, (B, T of the anchor, D)."""
        tokens = self.embedding(features)
        anchor = features[self.anchor]
        context = self.context_norm(torch.cat([tokens[name] for name in self.others], dim=1))  # (B, S, D)
        context_mask = torch.cat([features[name].mask for name in self.others], dim=1)
        x = tokens[self.anchor]
        for block in self.blocks:
            x = block(x, context_mask, context)
        x = self.norm(x)
        everything = torch.cat([x, context], dim=1)
        mask = torch.cat([anchor.mask, context_mask], dim=1)
        attended = self.pool(self.query.expand(x.shape[0], -1, -1), everything, mask).squeeze(1)  # (B, D)
        pooled = (masked_mean(x, anchor.mask) + attended) * mask.any(1, keepdim=True)
        return Features(x, anchor.mask, pooled, anchor.position)
