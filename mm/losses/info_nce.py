"""InfoNCE of pairs: each item finds its partner among all (van den Oord 2018; CLIP, Radford 2021)."""

from itertools import combinations

import torch
from torch import Tensor, nn

from mm.configurable import Configurable
from mm.losses.contrast import Temperature, check_options, cross_entropy_rows, positive_mask, sum_chunks
from mm.types import Embedded


def info_nce(
    mine: Embedded,
    everyone: Embedded,
    start: int,
    pair: tuple[int, int],
    scale: Tensor,
    same_label_pairs: str = "exclude",
    chunk_rows: int = 1024,
    symmetric: bool = True,
    logq_correction: bool = False,
) -> tuple[Tensor, Tensor]:
    """Compute the cross-entropy of `mine` over `everyone`, the mean of both directions.

    A row that lacks a side is neither anchor nor negative.

    Args:
        mine: Rows of this process.
        everyone: Rows of all processes.
        start: Index of the first row of `mine` among those of `everyone`.
        pair: The two sides that are compared.
        scale: Factor of the similarities.
        same_label_pairs: Rows of one label are left out ("exclude"), or further positives ("positive", as in SupCon).
        chunk_rows: Number of rows whose similarities are computed at once.
        symmetric: Whether both sides query; False: the first side alone.
        logq_correction: Whether the logits of the second side are corrected by its log_q, the logarithm of its
            frequency in the training rows (Yi 2019).

    Returns:
        The sum over the rows, and their count.
    """
    a, b = pair
    there = everyone.present[:, a] & everyone.present[:, b]  # (G,)

    def compute(part: Embedded, first: int) -> Tensor:
        own, item, label = positive_mask(part, everyone, start + first)
        positive = own | (label & ~item & there) if same_label_pairs == "positive" else own
        directions = []
        for i, j in ((a, b), (b, a)) if symmetric else ((a, b),):
            logits = scale * part.vectors[:, i] @ everyone.vectors[:, j].T  # (b, G)
            if logq_correction and j == b:
                logits = logits - everyone.log_q
            directions.append(cross_entropy_rows(logits, positive, ~label & there))
        found = torch.stack(directions).mean(0)
        return torch.where(part.present[:, a] & part.present[:, b], found, 0.0).sum()

    count = (mine.present[:, a] & mine.present[:, b]).sum()
    return sum_chunks(compute, mine, chunk_rows), count.to(scale.dtype)


class InfoNCE(Configurable, nn.Module):
    """InfoNCE of every pair of inputs (CLIP, Radford 2021).

    Args:
        init_logit_scale: The factor of the similarities at the start, one over the temperature; it is learnt.
        max_logit_scale: The largest factor.
        same_label_pairs: What is done about rows that share `task.label`: "exclude" leaves them out of one another's
            negatives, "positive" makes them positives.
        chunk_rows: Number of rows whose similarities to all rows are computed at once.
        symmetric: Whether both sides query; False: the first side alone, as a user queries items.
        logq_correction: Whether items that are in batches often, by `task.label`, are corrected for (Yi 2019).

    Raises:
        ValueError: If an option is out of range.
    """

    def __init__(
        self,
        init_logit_scale: float = 14.3,
        max_logit_scale: float = 100.0,
        same_label_pairs: str = "exclude",
        chunk_rows: int = 1024,
        symmetric: bool = True,
        logq_correction: bool = False,
    ):
        super().__init__()
        check_options(same_label_pairs, chunk_rows)
        self.temperature = Temperature(init_logit_scale, max_logit_scale)
        self.same_label_pairs = same_label_pairs
        self.chunk_rows = chunk_rows
        self.symmetric = symmetric
        self.logq_correction = logq_correction

    def groups(self, inputs: int) -> list[tuple[int, int]]:
        """Which of so many inputs are compared with one another."""
        return list(combinations(range(inputs), 2))

    def forward(self, mine: Embedded, everyone: Embedded, start: int) -> dict[tuple[int, ...], tuple[Tensor, Tensor]]:
        """-> group of inputs -> (sum over mine, count)"""
        scale = self.temperature()
        return {
            pair: info_nce(
                mine,
                everyone,
                start,
                pair,
                scale,
                self.same_label_pairs,
                self.chunk_rows,
                self.symmetric,
                self.logq_correction,
            )
            for pair in self.groups(mine.present.shape[1])
        }
