"""Blocks of an input, told from the tokens of the rest."""

import torch
from torch import Tensor, nn

from mm.types import Features


def draw(there: Tensor, ratio: float, generator: torch.Generator | None) -> Tensor:
    """This part of each row's blocks, at least one, and never all: of a single one none. (B, N) bool -> (B, N) bool"""
    blocks = there.sum(1, keepdim=True)
    count = (ratio * blocks).round().clamp(min=1).minimum(blocks - 1)
    lot = torch.rand(there.shape, generator=generator).to(there.device)
    return lot.masked_fill(~there, torch.inf).argsort(1).argsort(1) < count


class BlockDecoder(nn.Module):
    """What a block holds, from the token that lies nearest and from where the block lies beside it."""

    def __init__(self, dim: int, values: int):
        super().__init__()
        self.offset = nn.Linear(2, dim)
        self.mlp = nn.Sequential(nn.Linear(dim, dim), nn.GELU(), nn.Linear(dim, values))

    def forward(self, features: Features, places: Tensor) -> Tensor:
        """places (N, 2), or (B, N, 2) of each row its own -> (B, N, values)"""
        distance = torch.cdist(places.expand(len(features.position), -1, -1).float(), features.position.float())
        distance = distance.masked_fill(~features.mask.unsqueeze(1), torch.inf)
        nearest = distance.argmin(2)  # (B, N)
        tokens = features.tokens.gather(1, nearest.unsqueeze(-1).expand(-1, -1, features.tokens.shape[2]))
        beside = places - features.position.gather(1, nearest.unsqueeze(-1).expand(-1, -1, 2))
        return self.mlp(tokens + self.offset(beside.to(tokens.dtype)))
