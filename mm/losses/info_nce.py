"""InfoNCE of pairs: each item finds its partner among all (van den Oord 2018; CLIP, Radford 2021)."""

from itertools import combinations

import torch
from torch import Tensor, nn

from mm.configurable import Configurable
from mm.losses.contrast import Temperature, alike, check_options, contrast, in_blocks
from mm.types import Embedded


def info_nce(
    mine: Embedded,
    everyone: Embedded,
    start: int,
    pair: tuple[int, int],
    scale: Tensor,
    same_label: str = "exclude",
    block: int = 1024,
    symmetric: bool = True,
    popularity: bool = False,
) -> tuple[Tensor, Tensor]:
    """Cross-entropy of `mine` over `everyone`, mean of both directions -> its sum over the rows, their count.

    A row that lacks a side is neither anchor nor negative. start: where mine begin among everyone's; same_label: rows
    of one label are left out (exclude), or further positives (positive, as in SupCon); block: rows at once; symmetric:
    False: only the first side asks; popularity: what the second side has is in a batch as often as in the training
    rows, which is taken out by its log_q (Yi 2019).
    """
    a, b = pair
    there = everyone.present[:, a] & everyone.present[:, b]  # (G,)

    def compute(part: Embedded, first: int) -> Tensor:
        own, item, label = alike(part, everyone, start + first)
        positive = own | (label & ~item & there) if same_label == "positive" else own
        directions = []
        for i, j in ((a, b), (b, a)) if symmetric else ((a, b),):
            logits = scale * part.vectors[:, i] @ everyone.vectors[:, j].T  # (b, G)
            if popularity and j == b:
                logits = logits - everyone.log_q
            directions.append(contrast(logits, positive, ~label & there))
        found = torch.stack(directions).mean(0)
        return torch.where(part.present[:, a] & part.present[:, b], found, 0.0).sum()

    count = (mine.present[:, a] & mine.present[:, b]).sum()
    return in_blocks(compute, mine, block), count.to(scale.dtype)


class InfoNCE(Configurable, nn.Module):
    """Of every pair of inputs. scale: where the learnt temperature's inverse starts; the rest: see info_nce."""

    def __init__(
        self,
        scale: float = 14.3,
        max_scale: float = 100.0,
        same_label: str = "exclude",
        block: int = 1024,
        symmetric: bool = True,
        popularity: bool = False,
    ):
        super().__init__()
        check_options(same_label, block)
        self.temperature = Temperature(scale, max_scale)
        self.same_label = same_label
        self.block = block
        self.symmetric = symmetric
        self.popularity = popularity

    def groups(self, inputs: int) -> list[tuple[int, int]]:
        """Which of so many inputs are compared with one another."""
        return list(combinations(range(inputs), 2))

    def forward(self, mine: Embedded, everyone: Embedded, start: int) -> dict[tuple[int, ...], tuple[Tensor, Tensor]]:
        """-> group of inputs -> (sum over mine, count)"""
        scale = self.temperature()
        return {
            pair: info_nce(
                mine, everyone, start, pair, scale, self.same_label, self.block, self.symmetric, self.popularity
            )
            for pair in self.groups(mine.present.shape[1])
        }
