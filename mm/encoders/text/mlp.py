"""An MLP over a bag of subwords."""

from torch import Tensor, nn

from mm.configurable import Configurable
from mm.encoders.text.bag import hashed_ngrams
from mm.layers import masked_mean, single_token
from mm.types import Features, InputSpec


class TextMLP(Configurable, nn.Module):
    """ReLU MLP of the mean embedding of a text's subwords, its hashed byte n-grams (deep averaging, Iyyer 2015).

    layers: linear layers, each with a ReLU and dropout; ngram: longest n-gram, in bytes; max_length: in bytes, what the
    data is cut or windowed to. It gives a single token. Errors: ValueError without a layer.
    """

    def __init__(self, embed_dim: int, layers: int, ngram: int, buckets: int, dropout: float, max_length: int | None):
        super().__init__()
        if layers < 1:
            raise ValueError(f"layers: got {layers}, wanted at least 1")
        self.embed_dim = embed_dim
        self.ngram = ngram
        self.buckets = buckets
        self.input = InputSpec(modality="text", tokenizer="bytes", max_length=max_length)
        self.embed = nn.Embedding(buckets, embed_dim)
        blocks = [(nn.Linear(embed_dim, embed_dim), nn.ReLU(), nn.Dropout(dropout)) for _ in range(layers)]
        self.mlp = nn.Sequential(*(part for block in blocks for part in block))

    def layer_order(self) -> list[list[str]]:
        """Return prefixes of the parameters' names, layer by layer from input to output."""
        return [["embed"], *([f"mlp.{i}"] for i, part in enumerate(self.mlp) if isinstance(part, nn.Linear))]

    def forward(self, x: Tensor, mask: Tensor) -> Features:
        """(B, T) int64, (B, T)"""
        bag = masked_mean(self.embed(hashed_ngrams(x, self.ngram, self.buckets)).mean(2), mask)  # (B, D)
        return single_token(self.mlp(bag), mask.any(1))
