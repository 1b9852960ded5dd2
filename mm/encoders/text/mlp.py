"""An MLP over a bag of subwords."""

from torch import Tensor, nn

from mm.configurable import Configurable
from mm.encoders.text.hashed_ngrams import hashed_ngrams
from mm.layers import masked_mean, single_token
from mm.types import Features, InputSpec


class TextMLP(Configurable, nn.Module):
    """ReLU MLP of the mean embedding of the hashed byte n-grams of a text (deep averaging, Iyyer et al. 2015).

    The result has one token.

    Args:
        embed_dim: Width D of the embedding and of every layer.
        num_layers: Number of linear layers, each with a ReLU and dropout.
        ngram: Length of the longest n-gram in bytes.
        num_hash_buckets: Number of embeddings that the n-grams are hashed to.
        dropout: Dropout probability.
        max_length: Number of bytes to which texts are truncated, or which a window has; None: no limit.

    Raises:
        ValueError: If there is no layer.
    """

    def __init__(
        self,
        embed_dim: int = 128,
        num_layers: int = 2,
        ngram: int = 5,
        num_hash_buckets: int = 20000,
        dropout: float = 0.1,
        max_length: int | None = 512,
    ):
        super().__init__()
        if num_layers < 1:
            raise ValueError(f"num_layers: got {num_layers}, wanted at least 1")
        self.embed_dim = embed_dim
        self.ngram = ngram
        self.num_hash_buckets = num_hash_buckets
        self.input = InputSpec(modality="text", tokenizer="bytes", max_length=max_length)
        self.embed = nn.Embedding(num_hash_buckets, embed_dim)
        blocks = [(nn.Linear(embed_dim, embed_dim), nn.ReLU(), nn.Dropout(dropout)) for _ in range(num_layers)]
        self.mlp = nn.Sequential(*(part for block in blocks for part in block))

    def layer_order(self) -> list[list[str]]:
        """Return prefixes of the parameters' names, layer by layer from input to output."""
        return [["embed"], *([f"mlp.{i}"] for i, part in enumerate(self.mlp) if isinstance(part, nn.Linear))]

    def forward(self, x: Tensor, mask: Tensor) -> Features:
        """(B, T) int64, (B, T)"""
        bag = masked_mean(self.embed(hashed_ngrams(x, self.ngram, self.num_hash_buckets)).mean(2), mask)  # (B, D)
        return single_token(self.mlp(bag), mask.any(1))
