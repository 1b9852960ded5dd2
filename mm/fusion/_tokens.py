"""Helpers of the fusions: presence of inputs, choice of the anchor, an MLP, and embeddings of input and position."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mm.layers import sinusoid
from mm.types import Features


def presence(features: dict[str, Features], inputs: Sequence[str]) -> Tensor:
    """Return whether each row has each of the N inputs, (B, N) bool."""
    return torch.stack([features[name].mask.any(1) for name in inputs], dim=1)


def anchor_of(inputs: Sequence[str], anchor: str | None) -> str:
    """Return the name of the anchor, which is the input whose tokens a fusion keeps.

    Args:
        inputs: Names of the inputs, in order.
        anchor: Name of the anchor; None: the first input.

    Raises:
        ValueError: If the anchor is not one of the inputs.
    """
    if anchor is not None and anchor not in inputs:
        raise ValueError(f"model.fusion.anchor: got '{anchor}', wanted one of {', '.join(inputs)}")
    return inputs[0] if anchor is None else anchor


def mlp(wide: int, hidden_dim: int, embed_dim: int, dropout: float) -> nn.Sequential:
    """Return an MLP with one hidden layer that maps (..., wide) to (..., embed_dim)."""
    return nn.Sequential(nn.Linear(wide, hidden_dim), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden_dim, embed_dim))


class TokenEmbedding(nn.Module):
    """Add an embedding of the input and of the position to the tokens of each input.

    The embedding of an input is a trained vector. The embedding of a position is a linear projection of the sinusoids
    of its two coordinates.
    """

    # The fastest sinusoid has a period of 1/16 of the input. Encoders represent finer order themselves.
    SCALE = 100.0

    def __init__(self, inputs: Sequence[str], embed_dim: int):
        super().__init__()
        self.inputs = list(inputs)
        self.kind = nn.Parameter(torch.randn(len(self.inputs), embed_dim) * 0.02)
        self.place = nn.Linear(2 * embed_dim, embed_dim, bias=False)

    def forward(self, features: dict[str, Features]) -> dict[str, Tensor]:
        """Return the embedded tokens (B, T, D) of each input, by input name."""
        tokens = {}
        for i, name in enumerate(self.inputs):
            f = features[name]
            place = sinusoid(f.position * self.SCALE, f.tokens.shape[-1]).flatten(2)  # (B, T, 2 D) of y and x
            tokens[name] = f.tokens + self.kind[i] + self.place(place.to(f.tokens.dtype))
        return tokens
