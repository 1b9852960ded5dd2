"""A small transformer over bytes or tokens, from scratch."""

import torch
from torch import Tensor, nn

from mm.configurable import Configurable
from mm.layers import Pool, TransformerBlock, sinusoid, time_position
from mm.types import Features, InputSpec

BYTES = 257  # 256 bytes, and 0 for padding


class TextTransformer(Configurable, nn.Module):
    """Pre-norm transformer with sinusoidal positions (Vaswani 2017, Xiong 2020).

    tokenizer: bytes, or a tokenizer's folder or hub name, which has `vocabulary` tokens; max_length: in tokens, what
    the data is cut or windowed to; the model itself takes any length; causal: no token sees those to come.
    """

    def __init__(
        self,
        embed_dim: int,
        layers: int,
        heads: int,
        dropout: float,
        max_length: int | None,
        pool: str,
        tokenizer: str = "bytes",
        vocabulary: int = 0,
        causal: bool = False,
    ):
        super().__init__()
        self.embed_dim = embed_dim
        self.input = InputSpec(modality="text", tokenizer=tokenizer, max_length=max_length)
        self.embed = nn.Embedding(BYTES if tokenizer == "bytes" else vocabulary, embed_dim)
        # Small, so that they learn fast, and scaled to a deviation of one, as the positions have (Vaswani 2017, 3.4).
        self.scale = embed_dim**0.5
        nn.init.normal_(self.embed.weight, std=1 / self.scale)
        self.drop = nn.Dropout(dropout)
        self.blocks = nn.ModuleList([TransformerBlock(embed_dim, heads, dropout, causal=causal) for _ in range(layers)])
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
