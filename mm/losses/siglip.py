"""Sigmoid loss of pairs: for every two items, whether they belong together (SigLIP, Zhai 2023)."""

from itertools import combinations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mm.configurable import Configurable
from mm.losses.contrast import Temperature, alike, check_options, in_blocks
from mm.types import Embedded


def siglip(
    mine: Embedded,
    everyone: Embedded,
    start: int,
    pair: tuple[int, int],
    scale: Tensor,
    bias: Tensor,
    same_label: str = "exclude",
    block: int = 1024,
) -> tuple[Tensor, Tensor]:
    """-log sigmoid(z (scale x.y + bias)), z = 1 for partners and -1 else -> sum over mine and everyone, rows of mine.

    A row that lacks a side is in no pair. start, same_label: as in info_nce; block: of everyone's rows at once.
    """
    a, b = pair
    valid = mine.present[:, a] & mine.present[:, b]  # (b,)

    def compute(part: Embedded, first: int) -> Tensor:
        own, item, label = alike(mine, part, start - first)
        positive = own | (label & ~item) if same_label == "positive" else own
        counted = (positive | ~label) & valid[:, None] & part.present[:, a] & part.present[:, b]
        logits = scale * mine.vectors[:, a] @ part.vectors[:, b].T + bias
        return torch.where(counted, -F.logsigmoid(torch.where(positive, logits, -logits)), 0.0).sum()

    return in_blocks(compute, everyone, block), valid.sum().to(scale.dtype)


class SigLIP(Configurable, nn.Module):
    """Of every pair of inputs. scale, bias: where the learnt ones start, as in the paper; the rest: see siglip."""

    popularity = False

    def __init__(
        self,
        scale: float = 10.0,
        max_scale: float = 100.0,
        bias: float = -10.0,
        same_label: str = "exclude",
        block: int = 1024,
    ):
        super().__init__()
        check_options(same_label, block)
        self.temperature = Temperature(scale, max_scale)
        self.bias = nn.Parameter(torch.tensor([bias]))
        self.same_label = same_label
        self.block = block

    def groups(self, inputs: int) -> list[tuple[int, int]]:
        """Which of so many inputs are compared with one another."""
        return list(combinations(range(inputs), 2))

    def forward(self, mine: Embedded, everyone: Embedded, start: int) -> dict[tuple[int, ...], tuple[Tensor, Tensor]]:
        """-> group of inputs -> (sum over mine, count)"""
        scale = self.temperature()
        return {
            pair: siglip(mine, everyone, start, pair, scale, self.bias, self.same_label, self.block)
            for pair in self.groups(mine.present.shape[1])
        }
