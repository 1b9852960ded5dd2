"""InfoNCE of pairs of inputs, which matches each item with its partner (van den Oord et al. 2018)."""

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
    """Compute the cross-entropy of the rows of this process over the rows of all processes.

    The loss is averaged over both directions, from the first input to the second and back. A row that lacks an input of
    the pair is neither an anchor nor a negative.

    Args:
        mine: Rows of this process.
        everyone: Rows of all processes.
        start: Index of the first row of `mine` in `everyone`.
        pair: Indices of the two inputs to compare.
        scale: Factor of the similarities.
        same_label_pairs: Treatment of rows with the same label: "exclude" leaves them out, "positive" makes them
            additional positives, as in SupCon.
        chunk_rows: Number of rows whose similarities are computed at a time.
        symmetric: Whether to average over both directions; False: only the first input queries.
        logq_correction: Whether to subtract `log_q`, the logarithm of the label's frequency in the training rows, from
            the logits of the second input (Yi et al. 2019).

    Returns:
        The sum of the loss over the rows of this process that have both inputs, and their number.
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
    """InfoNCE of each pair of inputs (CLIP, Radford et al. 2021).

    Args:
        init_logit_scale: Initial factor of the similarities, one over the temperature; it is trained.
        max_logit_scale: Maximum of this factor.
        same_label_pairs: Treatment of rows with the same `task.label`: `exclude` does not use them as negatives of each
            other, `positive` uses them as positives.
        chunk_rows: Number of rows whose similarities to all rows are computed at a time.
        symmetric: Whether to average over both directions; False: only the first input queries, as a user queries
            items.
        logq_correction: Whether to correct for items that are frequent in batches, by the frequency of their
            `task.label` (Yi et al. 2019).

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
        """Return the groups of inputs that are compared, by index, given the number of inputs."""
        return list(combinations(range(inputs), 2))

    def forward(self, mine: Embedded, everyone: Embedded, start: int) -> dict[tuple[int, ...], tuple[Tensor, Tensor]]:
        """Compute the loss of each pair of inputs.

        Args:
            mine: Rows of this process.
            everyone: Rows of all processes.
            start: Index of the first row of `mine` in `everyone`.

        Returns:
            For each pair of inputs, the sum of the loss over the rows of this process, and their number.
        """
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
