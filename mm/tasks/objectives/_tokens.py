"""Prediction of tokens with the encoder's own embedding table (weight tying).

Shapes: N tokens, D width, V size of the vocabulary.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mm.model import MultimodalModel


@runtime_checkable
class TokenEncoder(Protocol):
    """An Encoder that has an embedding table of its tokens."""

    @property
    def token_embedding(self) -> nn.Embedding: ...


class TokenDecoder(nn.Module):
    """Predict tokens with the encoder's own embedding table as the output layer (Press and Wolf 2017), as BERT does.

    Args:
        dim: Width D of the tokens that the decoder reads.
        table: The embedding table. Only its shape and the spread of its weights are used; it is not stored.
    """

    def __init__(self, dim: int, table: nn.Embedding):
        super().__init__()
        norm = nn.LayerNorm(table.embedding_dim)
        # The initial logits have a standard deviation of at most 1; else a table of unit variance starts at loss 40.
        spread = float(table.weight.detach().std()) * table.embedding_dim**0.5
        nn.init.constant_(norm.weight, min(1.0, 1 / spread))
        self.mlp = nn.Sequential(nn.Linear(dim, table.embedding_dim), nn.GELU(), norm)
        self.bias = nn.Parameter(torch.zeros(table.num_embeddings))

    def forward(self, tokens: Tensor, table: nn.Embedding) -> Tensor:
        """Return the logits of the tokens.

        Args:
            tokens: Output tokens of the encoder, (N, D).
            table: The embedding table.

        Returns:
            Logits, (N, V) float32.
        """
        return F.linear(self.mlp(tokens), table.weight, self.bias).float()


def table_of(model: MultimodalModel, name: str, objective: str) -> nn.Embedding:
    """Return the token embedding table of the encoder of an input.

    Args:
        model: The model.
        name: Name of the input.
        objective: Name of the objective, for the error message.

    Returns:
        The embedding table.

    Raises:
        ValueError: If the encoder has no `token_embedding`.
    """
    encoder: Any = model.encoders[model.shared_encoders.get(name, name)]
    if not isinstance(encoder, TokenEncoder) or not isinstance(encoder.token_embedding, nn.Embedding):
        raise ValueError(
            f"task.objectives: {objective} tells tokens, but {type(encoder).__name__} of '{name}' has no table of "
            "them; choose model/encoders/text=transformer, recurrent or huggingface"
        )
    return encoder.token_embedding


def token_decoders(model: MultimodalModel, inputs: Sequence[str], objective: str) -> Mapping[str, TokenDecoder]:
    """Return a new TokenDecoder for each input, as an nn.ModuleDict.

    Args:
        model: The model.
        inputs: Names of the inputs.
        objective: Name of the objective, for error messages.

    Returns:
        Input name to decoder.

    Raises:
        ValueError: If the encoder of an input has no `token_embedding`.
    """
    widths = {name: model.projections[model.shared_encoders.get(name, name)].out_features for name in inputs}
    made = {name: TokenDecoder(width, table_of(model, name, objective)) for name, width in widths.items()}
    return nn.ModuleDict(made)  # type: ignore[return-value]
