"""A bag of hashed byte n-grams: no order beyond them, and fast."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mm.configurable import Configurable
from mm.layers import Pool, time_position
from mm.types import Features, InputSpec

MULTIPLIER = 1_000_003  # a prime beyond every bucket count, so that each byte of an n-gram moves its bucket


def hashed_ngrams(x: Tensor, ngram: int, buckets: int) -> Tensor:
    """Buckets of the n-grams of 1 to `ngram` bytes that end at each byte. (B, T) -> (B, T, ngram)"""
    bucket = torch.zeros_like(x)
    orders = []
    for n in range(ngram):
        bucket = (bucket * MULTIPLIER + F.pad(x, (n, 0))[:, : x.shape[1]] + n + 1) % buckets
        orders.append(bucket)
    return torch.stack(orders, dim=-1)


class TextBag(Configurable, nn.Module):
    """Mean embedding of the hashed byte n-grams that end at each byte, then an MLP (fastText, Bojanowski 2017).

    ngram: longest n-gram, in bytes. max_length: in bytes, what the data is cut or windowed to.
    """

    def __init__(self, embed_dim: int, ngram: int, buckets: int, dropout: float, max_length: int | None, pool: str):
        super().__init__()
        self.embed_dim = embed_dim
        self.ngram = ngram
        self.buckets = buckets
        self.input = InputSpec(modality="text", tokenizer="bytes", max_length=max_length)
        self.embed = nn.Embedding(buckets, embed_dim)
        self.mlp = nn.Sequential(
            nn.Linear(embed_dim, embed_dim), nn.GELU(), nn.Dropout(dropout), nn.Linear(embed_dim, embed_dim)
        )
        self.pool = Pool(pool, embed_dim)

    def layer_order(self) -> list[list[str]]:
        """Return prefixes of the parameters' names, layer by layer from input to output."""
        return [["embed"], ["mlp.0"], ["mlp.3", "pool"]]

    def forward(self, x: Tensor, mask: Tensor) -> Features:
        """(B, T) int64, (B, T)"""
        tokens = self.mlp(self.embed(hashed_ngrams(x, self.ngram, self.buckets)).mean(2))
        return Features(tokens, mask, self.pool(tokens, mask), time_position(mask))
