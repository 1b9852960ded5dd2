"""A small transformer over bytes or tokens, from scratch."""

import torch
from torch import Tensor, nn

from mm.configurable import Configurable
from mm.layers import Pool, TransformerBlock, sinusoid, time_position
from mm.types import Features, InputSpec

BYTES = 257  # 256 bytes, and 0 for padding


class TextTransformer(Configurable, nn.Module):
    """Pre-norm transformer with sinusoidal positions, from scratch (Vaswani et al. 2017, Xiong et al. 2020).

    Args:
        embed_dim: Width D of the tokens.
        num_layers: Number of transformer layers.
        num_heads: Number of attention heads; it divides `embed_dim`.
        dropout: Dropout probability.
        max_length: Number of tokens to which texts are truncated, or which a window has; None: no limit. The model
            itself accepts any length.
        pool: Pooling of the tokens: `mean`, `first`, `last`, `max` or `attention`.
        tokenizer: `bytes`; `bpe`, `wordpiece` or `unigram`, trained on the training rows; or a folder or hub
            name.
        vocab_size: Number of tokens of the tokenizer.
        causal: Whether a token attends to itself and earlier tokens only.

    Raises:
        ValueError: If `num_heads` does not divide `embed_dim`.
    """

    def __init__(
        self,
        embed_dim: int = 128,
        num_layers: int = 2,
        num_heads: int = 4,
        dropout: float = 0.1,
        max_length: int | None = 512,
        pool: str = "mean",
        tokenizer: str = "bytes",
        vocab_size: int = 8000,
        causal: bool = False,
    ):
        super().__init__()
        self.embed_dim = embed_dim
        self.input = InputSpec(modality="text", tokenizer=tokenizer, max_length=max_length)
        self.embed = nn.Embedding(BYTES if tokenizer == "bytes" else vocab_size, embed_dim)
        # Small, so that they learn fast, and scaled to a deviation of one, as the positions have (Vaswani 2017, 3.4).
        self.scale = embed_dim**0.5
        nn.init.normal_(self.embed.weight, std=1 / self.scale)
        self.drop = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(
            [TransformerBlock(embed_dim, num_heads, dropout, causal=causal) for _ in range(num_layers)]
        )
        self.norm = nn.LayerNorm(embed_dim)
        self.pool = Pool(pool, embed_dim)

    @property
    def token_embedding(self) -> nn.Embedding:
        return self.embed

    def layer_order(self) -> list[list[str]]:
        """Return prefixes of the parameters' names, layer by layer from input to output."""
        order = [["embed"], *([f"blocks.{i}"] for i in range(len(self.blocks)))]
        return [*order[:-1], [*order[-1], "norm", "pool"]]

    def forward(self, x: Tensor, mask: Tensor) -> Features:
        """(B, T) int64, (B, T)"""
        tokens = self.embed(x) * self.scale
        time = torch.arange(x.shape[1], device=x.device)
        tokens = self.drop(tokens + sinusoid(time, self.embed_dim).to(tokens.dtype))
        for block in self.blocks:
            tokens = block(tokens, mask)
        tokens = self.norm(tokens)
        return Features(tokens, mask, self.pool(tokens, mask), time_position(mask))
