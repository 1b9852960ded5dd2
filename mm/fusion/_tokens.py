"""What fusions share: which inputs a row has, which is the anchor, an MLP; of a token its input and place."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mm.layers import sinusoid
from mm.types import Features


def presence(features: dict[str, Features], inputs: Sequence[str]) -> Tensor:
    """Which of the N inputs each row has. -> (B, N) bool"""
    return torch.stack([features[name].mask.any(1) for name in inputs], dim=1)


def anchor_of(inputs: Sequence[str], anchor: str | None) -> str:
    """The input whose tokens are kept, the first where none is named. Errors: ValueError where it is no input."""
    if anchor is not None and anchor not in inputs:
        raise ValueError(f"model.fusion.anchor: got '{anchor}', wanted one of {', '.join(inputs)}")
    return inputs[0] if anchor is None else anchor


def mlp(wide: int, hidden_dim: int, embed_dim: int, dropout: float) -> nn.Sequential:
    """(..., wide) -> (..., embed_dim)"""
    return nn.Sequential(nn.Linear(wide, hidden_dim), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden_dim, embed_dim))


class TokenEmbedding(nn.Module):
    """Add a learnt vector per input, and a projection of the position's sinusoids, to the tokens of each input."""

    # The period of the fastest sinusoid is 1/16 of the input: finer order is the encoders' own.
    SCALE = 100.0

    def __init__(self, inputs: Sequence[str], embed_dim: int):
        super().__init__()
        self.inputs = list(inputs)
        self.kind = nn.Parameter(torch.randn(len(self.inputs), embed_dim) * 0.02)
        self.place = nn.Linear(2 * embed_dim, embed_dim, bias=False)

    def forward(self, features: dict[str, Features]) -> dict[str, Tensor]:
        """input name -> (B, T, D) -> the same, as bare tokens"""
        tokens = {}
        for i, name in enumerate(self.inputs):
            f = features[name]
            place = sinusoid(f.position * self.SCALE, f.tokens.shape[-1]).flatten(2)  # (B, T, 2 D) of y and x
            tokens[name] = f.tokens + self.kind[i] + self.place(place.to(f.tokens.dtype))
        return tokens
