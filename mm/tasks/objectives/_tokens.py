"""Tokens of texts, told by the encoder's own table of them."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mm.model import MultimodalModel


@runtime_checkable
class TokenEncoder(Protocol):
    """An Encoder that looks its tokens up in a table."""

    @property
    def token_embedding(self) -> nn.Embedding: ...


class TokenDecoder(nn.Module):
    """Which token stands at a place, by the encoder's own table of them (Press 2017), as BERT does."""

    def __init__(self, dim: int, table: nn.Embedding):
        super().__init__()
        norm = nn.LayerNorm(table.embedding_dim)
        # Logits begin with a deviation of 1 at most: tables drawn with one of 1 would begin at a loss of 40.
        spread = float(table.weight.detach().std()) * table.embedding_dim**0.5
        nn.init.constant_(norm.weight, min(1.0, 1 / spread))
        self.mlp = nn.Sequential(nn.Linear(dim, table.embedding_dim), nn.GELU(), norm)
        self.bias = nn.Parameter(torch.zeros(table.num_embeddings))

    def forward(self, tokens: Tensor, table: nn.Embedding) -> Tensor:
        """(N, D) -> logits (N, V)"""
        return F.linear(self.mlp(tokens), table.weight, self.bias).float()


def table_of(model: MultimodalModel, name: str, objective: str) -> nn.Embedding:
    """Errors: ValueError where the encoder of an input has none."""
    encoder: Any = model.encoders[model.shared_encoders.get(name, name)]
    if not isinstance(encoder, TokenEncoder) or not isinstance(encoder.token_embedding, nn.Embedding):
        raise ValueError(
            f"task.objectives: {objective} tells tokens, but {type(encoder).__name__} of '{name}' has no table of "
            "them; choose model/encoders/text=transformer, recurrent or huggingface"
        )
    return encoder.token_embedding


def token_decoders(model: MultimodalModel, inputs: Sequence[str], objective: str) -> Mapping[str, TokenDecoder]:
    """One for each input."""
    widths = {name: model.projections[model.shared_encoders.get(name, name)].out_features for name in inputs}
    made = {name: TokenDecoder(width, table_of(model, name, objective)) for name, width in widths.items()}
    return nn.ModuleDict(made)  # type: ignore[return-value]
