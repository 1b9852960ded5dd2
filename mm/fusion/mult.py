"""Crossmodal transformers, in which each input attends to each other input and then to itself."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mm.configurable import Configurable
from mm.fusion._tokens import TokenEmbedding
from mm.layers import TransformerBlock, masked_mean
from mm.types import Features


class Transformer(nn.Module):
    """Transformer blocks that attend to their own tokens, or to the tokens of a context."""

    def __init__(self, dim: int, num_layers: int, num_heads: int, dropout: float):
        super().__init__()
        self.blocks = nn.ModuleList(TransformerBlock(dim, num_heads, dropout) for _ in range(num_layers))

    def forward(self, x: Tensor, mask: Tensor, context: Tensor | None = None) -> Tensor:
        """Return the updated tokens, (B, T, D).

        Args:
            x: Tokens, (B, T, D).
            mask: Mask of the attended tokens: of the context (B, S), or of x (B, T) without a context.
            context: Tokens to attend to, (B, S, D); None: x.
        """
        for block in self.blocks:
            x = block(x, mask, context)
        return x


class MulTFusion(Configurable, nn.Module):
    """Fuse each ordered pair of inputs with a crossmodal transformer (MulT, Tsai et al. 2019).

    For each input, the results of its pairs with the other inputs are concatenated, with zeros for absent inputs,
    projected and added to its tokens. A second transformer per input then attends to these tokens. The tokens of the
    result are the tokens of all inputs, in order. The pooled vector is a projection of the mean token of each input.

    Args:
        inputs: Names of the inputs, in order.
        embed_dim: Width D of the inputs and of the result.
        num_layers: Number of layers of each transformer.
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
        n = len(self.inputs)
        shape = (embed_dim, num_layers, num_heads, dropout)
        self.embedding = TokenEmbedding(self.inputs, embed_dim)
        self.pairs = [(target, source) for target in range(n) for source in range(n) if source != target]
        self.crossmodal = nn.ModuleList(Transformer(*shape) for _ in self.pairs)
        merged = range(n if self.pairs else 0)
        self.merge = nn.ModuleList(nn.Linear((n - 1) * embed_dim, embed_dim) for _ in merged)
        self.unimodal = nn.ModuleList(Transformer(*shape) for _ in self.inputs)
        self.norm = nn.LayerNorm(embed_dim)
        self.out = nn.Linear(n * embed_dim, embed_dim)

    def forward(self, features: dict[str, Features]) -> Features:
        """Fuse the Features of each input, by name, into Features with the tokens of all inputs, (B, sum of T, D)."""
        embedded = self.embedding(features)
        tokens = [embedded[name] for name in self.inputs]
        masks = [features[name].mask for name in self.inputs]
        tokens = self.exchange(tokens, masks) if self.pairs else tokens
        tokens = [self.norm(own(x, mask)) for own, x, mask in zip(self.unimodal, tokens, masks, strict=True)]
        mask = torch.cat(masks, dim=1)
        means = [masked_mean(x, m) for x, m in zip(tokens, masks, strict=True)]  # N times (B, D)
        pooled = self.out(torch.cat(means, dim=-1)) * mask.any(1, keepdim=True)
        position = torch.cat([features[name].position for name in self.inputs], dim=1)
        return Features(torch.cat(tokens, dim=1), mask, pooled, position)

    def exchange(self, tokens: list[Tensor], masks: list[Tensor]) -> list[Tensor]:
        """Add the projected results of the crossmodal transformers to the tokens (B, T, D) of each input."""
        contexts = [F.layer_norm(x, x.shape[-1:]) for x in tokens]
        found: list[list[Tensor]] = [[] for _ in tokens]
        for (target, source), cross in zip(self.pairs, self.crossmodal, strict=True):
            x = cross(tokens[target], masks[source], contexts[source])
            found[target].append(x * masks[source].any(1)[:, None, None])
        return [x + merge(torch.cat(y, dim=-1)) for x, merge, y in zip(tokens, self.merge, found, strict=True)]
