"""FiLM, which scales and shifts the features of one input by functions of the other inputs."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mm.configurable import Configurable
from mm.fusion._tokens import anchor_of, presence
from mm.types import Features


def modulate(x: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
    """Scale x by 1 + gamma and shift it by beta, so that gamma = beta = 0 leaves x unchanged.

    Args:
        x: Vectors to modulate, (B, T, D).
        gamma: Scale, (B, D).
        beta: Shift, (B, D).
    """
    return x * (1 + gamma.unsqueeze(1)) + beta.unsqueeze(1)


class FilmBlock(nn.Module):
    """Residual block of FiLM, which is modulated between normalisation and activation.

    It has linear layers in place of the convolutions of the paper.
    """

    def __init__(self, dim: int, dropout: float):
        super().__init__()
        self.first = nn.Linear(dim, dim)
        self.norm = nn.LayerNorm(dim, elementwise_affine=False)  # its gain and bias are gamma and beta
        self.last = nn.Sequential(nn.GELU(), nn.Dropout(dropout), nn.Linear(dim, dim))

    def forward(self, x: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
        """Return the modulated tokens, (B, T, D).

        Args:
            x: Tokens, (B, T, D).
            gamma: Scale, (B, D).
            beta: Shift, (B, D).
        """
        return x + self.last(modulate(self.norm(self.first(x)), gamma, beta))


class FilmFusion(Configurable, nn.Module):
    """Scale and shift the features of one input, the anchor, by functions of the others (FiLM, Perez et al. 2018).

    The scales and shifts from all other inputs that are present are added up. If none of them is present, nothing is
    modulated. The pooled vector of the anchor passes through the blocks as one more token. If the anchor is absent,
    this token starts as zeros, so that the result depends on the shifts only. The result has the tokens, mask and
    position of the anchor.

    Args:
        inputs: Names of the inputs, in order.
        embed_dim: Width D of the inputs and of the result.
        anchor: Name of the input that the others modulate; None: the first input.
        num_layers: Number of modulated residual blocks.
        dropout: Dropout probability.

    Raises:
        ValueError: If the anchor is not one of the inputs.
    """

    def __init__(
        self,
        *,
        inputs: Sequence[str],
        embed_dim: int,
        anchor: str | None = None,
        num_layers: int = 2,
        dropout: float = 0.0,
    ):
        super().__init__()
        self.inputs = list(inputs)
        self.anchor = anchor_of(self.inputs, anchor)
        self.others = [name for name in self.inputs if name != self.anchor]
        self.generators = nn.ModuleList(nn.Linear(embed_dim, num_layers * 2 * embed_dim) for _ in self.others)
        self.blocks = nn.ModuleList(FilmBlock(embed_dim, dropout) for _ in range(num_layers))

    def forward(self, features: dict[str, Features]) -> Features:
        """Fuse the Features of each input, by name, into Features with the anchor's tokens, (B, T of the anchor, D)."""
        anchor = features[self.anchor]
        change = anchor.pooled.new_zeros(len(anchor.pooled), 2 * len(self.blocks), anchor.pooled.shape[-1])
        for name, generator in zip(self.others, self.generators, strict=True):
            f = features[name]
            change = change + (generator(f.pooled) * f.mask.any(1, keepdim=True)).view_as(change)
        x = torch.cat([anchor.pooled.unsqueeze(1), anchor.tokens], dim=1)  # (B, 1 + T, D)
        for i, block in enumerate(self.blocks):
            x = block(x, change[:, 2 * i], change[:, 2 * i + 1])
        pooled = x[:, 0] * presence(features, self.inputs).any(1, keepdim=True)
        return Features(x[:, 1:], anchor.mask, pooled, anchor.position)
