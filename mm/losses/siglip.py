"""Sigmoid loss of pairs: for every two items, whether they belong together (SigLIP, Zhai 2023)."""

from itertools import combinations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mm.configurable import Configurable
from mm.losses.contrast import Temperature, check_options, positive_mask, sum_chunks
from mm.types import Embedded


def siglip(
    mine: Embedded,
    everyone: Embedded,
    start: int,
    pair: tuple[int, int],
    scale: Tensor,
    bias: Tensor,
    same_label_pairs: str = "exclude",
    chunk_rows: int = 1024,
) -> tuple[Tensor, Tensor]:
    """-log sigmoid(z (scale x.y + bias)), z = 1 for partners and -1 else -> sum over mine and everyone, rows of mine.

    A row that lacks a side is in no pair. start, same_label_pairs: as in info_nce; chunk_rows: of everyone's rows.
    """
    a, b = pair
    valid = mine.present[:, a] & mine.present[:, b]  # (b,)

    def compute(part: Embedded, first: int) -> Tensor:
        own, item, label = positive_mask(mine, part, start - first)
        positive = own | (label & ~item) if same_label_pairs == "positive" else own
        counted = (positive | ~label) & valid[:, None] & part.present[:, a] & part.present[:, b]
        logits = scale * mine.vectors[:, a] @ part.vectors[:, b].T + bias
        return torch.where(counted, -F.logsigmoid(torch.where(positive, logits, -logits)), 0.0).sum()

    return sum_chunks(compute, everyone, chunk_rows), valid.sum().to(scale.dtype)


class SigLIP(Configurable, nn.Module):
    """Sigmoid loss of every pair of inputs (SigLIP, Zhai 2023).

    Args:
        init_logit_scale: The factor of the similarities at the start, one over the temperature; it is learnt.
        max_logit_scale: The largest factor.
        bias: Added to the scaled similarities at the start; it is learnt.
        same_label_pairs: What is done about rows that share `task.label`: "exclude" leaves them out of one another's
            negatives, "positive" makes them positives.
        chunk_rows: Number of all rows whose similarities to those of this process are computed at once.

    Raises:
        ValueError: If an option is out of range.
    """

    logq_correction = False

    def __init__(
        self,
        init_logit_scale: float = 10.0,
        max_logit_scale: float = 100.0,
        bias: float = -10.0,
        same_label_pairs: str = "exclude",
        chunk_rows: int = 1024,
    ):
        super().__init__()
        check_options(same_label_pairs, chunk_rows)
        self.temperature = Temperature(init_logit_scale, max_logit_scale)
        self.bias = nn.Parameter(torch.tensor([bias]))
        self.same_label_pairs = same_label_pairs
        self.chunk_rows = chunk_rows

    def groups(self, inputs: int) -> list[tuple[int, int]]:
        """Which of so many inputs are compared with one another."""
        return list(combinations(range(inputs), 2))

    def forward(self, mine: Embedded, everyone: Embedded, start: int) -> dict[tuple[int, ...], tuple[Tensor, Tensor]]:
        """-> group of inputs -> (sum over mine, count)"""
        scale = self.temperature()
        return {
            pair: siglip(mine, everyone, start, pair, scale, self.bias, self.same_label_pairs, self.chunk_rows)
            for pair in self.groups(mine.present.shape[1])
        }
