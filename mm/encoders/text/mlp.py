"""MLP over the mean embedding of a text."""

from torch import Tensor, nn

from mm.configurable import Configurable
from mm.encoders.text.hashed_ngrams import hashed_ngrams
from mm.layers import masked_mean, single_token
from mm.types import Features, InputSpec


class TextMLP(Configurable, nn.Module):
    """ReLU MLP on the mean embedding of the hashed byte n-grams of a text (deep averaging network, Iyyer et al. 2015).

    The result has one token.

    Args:
        embed_dim: Width D of the embedding and of every layer.
        num_layers: Number of linear layers, each with a ReLU and dropout.
        ngram: Length of the longest n-gram in bytes.
        num_hash_buckets: Number of embeddings to which the n-grams are hashed.
        dropout: Dropout probability.
        max_length: Maximum number of bytes per text; None: no limit. Longer texts are truncated or, if the transform
            splits texts into windows, split into windows of this length.

    Raises:
        ValueError: If `num_layers` is below 1.
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
        """Return the prefixes of the parameter names of each layer, from input to output."""
        return [["embed"], *([f"mlp.{i}"] for i, part in enumerate(self.mlp) if isinstance(part, nn.Linear))]

    def forward(self, x: Tensor, mask: Tensor) -> Features:
        """Encode a batch of texts.

        Args:
            x: Byte tokens, (B, T) int64.
            mask: Mask of the tokens, (B, T).

        Returns:
            Features with one token, (B, 1, D).
        """
        bag = masked_mean(self.embed(hashed_ngrams(x, self.ngram, self.num_hash_buckets)).mean(2), mask)  # (B, D)
        return single_token(self.mlp(bag), mask.any(1))
