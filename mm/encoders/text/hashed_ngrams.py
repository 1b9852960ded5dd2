"""Encoder of text as hashed byte n-grams, without positions."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mm.configurable import Configurable
from mm.layers import Pool, time_position
from mm.types import Features, InputSpec

MULTIPLIER = 1_000_003  # a prime above any number of buckets, so that each byte of an n-gram changes its bucket


def hashed_ngrams(x: Tensor, ngram: int, num_buckets: int) -> Tensor:
    """Return the hash buckets of the n-grams of 1 to `ngram` bytes that end at each byte, (B, T, ngram).

    Args:
        x: Byte tokens, (B, T).
        ngram: Length of the longest n-gram in bytes.
        num_buckets: Number of hash buckets.
    """
    bucket = torch.zeros_like(x)
    orders = []
    for n in range(ngram):
        bucket = (bucket * MULTIPLIER + F.pad(x, (n, 0))[:, : x.shape[1]] + n + 1) % num_buckets
        orders.append(bucket)
    return torch.stack(orders, dim=-1)


class TextHashedNgrams(Configurable, nn.Module):
    """Embed each byte as the mean of the hashed n-grams that end there, then apply an MLP.

    The embeddings are those of fastText (Bojanowski et al. 2017).

    Args:
        embed_dim: Width D of the tokens.
        ngram: Length of the longest n-gram in bytes.
        num_hash_buckets: Number of embeddings to which the n-grams are hashed.
        dropout: Dropout probability.
        max_length: Maximum number of bytes per text; None: no limit. Longer texts are truncated or, if the transform
            splits texts into windows, split into windows of this length.
        pool: Pooling of the tokens: `mean`, `first`, `last`, `max` or `attention`.
    """

    def __init__(
        self,
        embed_dim: int = 64,
        ngram: int = 5,
        num_hash_buckets: int = 20000,
        dropout: float = 0.1,
        max_length: int | None = 512,
        pool: str = "mean",
    ):
        super().__init__()
        self.embed_dim = embed_dim
        self.ngram = ngram
        self.num_hash_buckets = num_hash_buckets
        self.input = InputSpec(modality="text", tokenizer="bytes", max_length=max_length)
        self.embed = nn.Embedding(num_hash_buckets, embed_dim)
        self.mlp = nn.Sequential(
            nn.Linear(embed_dim, embed_dim), nn.GELU(), nn.Dropout(dropout), nn.Linear(embed_dim, embed_dim)
        )
        self.pool = Pool(pool, embed_dim)

    def layer_order(self) -> list[list[str]]:
        """Return the prefixes of the parameter names of each layer, from input to output."""
        return [["embed"], ["mlp.0"], ["mlp.3", "pool"]]

    def forward(self, x: Tensor, mask: Tensor) -> Features:
        """Encode a batch of texts.

        Args:
            x: Byte tokens, (B, T) int64.
            mask: Mask of the tokens, (B, T).

        Returns:
            Features with one token per byte, (B, T, D).
        """
        tokens = self.mlp(self.embed(hashed_ngrams(x, self.ngram, self.num_hash_buckets)).mean(2))
        return Features(tokens, mask, self.pool(tokens, mask), time_position(mask))
