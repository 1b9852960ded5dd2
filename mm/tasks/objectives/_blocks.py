"""Random masks over blocks of an input, and a decoder that predicts a masked block from the tokens of the others.

Shapes: B batch, N blocks, D width, V values of a block.
"""

import torch
from torch import Tensor, nn

from mm.types import Features


def draw(there: Tensor, ratio: float, generator: torch.Generator | None) -> Tensor:
    """Draw the blocks to mask: a fraction of the blocks of each row, at least one, but never all of them.

    Args:
        there: Whether each block exists, (B, N) bool. A row with a single block gets no mask.
        ratio: Fraction of the blocks to mask, in 0..1.
        generator: Random generator on the CPU; None: torch's default generator.

    Returns:
        Whether each block is masked, (B, N) bool.
    """
    blocks = there.sum(1, keepdim=True)
    count = (ratio * blocks).round().clamp(min=1).minimum(blocks - 1)
    lot = torch.rand(there.shape, generator=generator).to(there.device)
    return lot.masked_fill(~there, torch.inf).argsort(1).argsort(1) < count


class BlockDecoder(nn.Module):
    """Predict the values of a block from the token nearest to it and from the offset between the block and that token.

    Args:
        dim: Width D of the tokens.
        values: Number V of values of a block.
    """

    def __init__(self, dim: int, values: int):
        super().__init__()
        self.offset = nn.Linear(2, dim)
        self.mlp = nn.Sequential(nn.Linear(dim, dim), nn.GELU(), nn.Linear(dim, values))

    def forward(self, features: Features, places: Tensor) -> Tensor:
        """Predict the values of N blocks of each row.

        Args:
            features: Features of the input, with B rows.
            places: Centres (y, x) of the blocks in 0..1, (N, 2), or (B, N, 2) if they differ between the rows.

        Returns:
            The predicted values, (B, N, V).
        """
        distance = torch.cdist(places.expand(len(features.position), -1, -1).float(), features.position.float())
        distance = distance.masked_fill(~features.mask.unsqueeze(1), torch.inf)
        nearest = distance.argmin(2)  # (B, N)
        tokens = features.tokens.gather(1, nearest.unsqueeze(-1).expand(-1, -1, features.tokens.shape[2]))
        beside = places - features.position.gather(1, nearest.unsqueeze(-1).expand(-1, -1, 2))
        return self.mlp(tokens + self.offset(beside.to(tokens.dtype)))
