"""Symile: all inputs of an item at once, by the sum of their elementwise product (Saporta 2024)."""

import torch
from torch import Tensor, nn

from mm.configurable import Configurable
from mm.losses.contrast import Temperature, check_options, cross_entropy_rows, positive_mask, sum_chunks
from mm.types import Embedded

NEGATIVES = ("shuffled", "all")


def candidates(row: Tensor, valid: Tensor, others: int, negatives: str) -> Tensor:
    """What stands beside an anchor: one of the valid rows for each other input -> (others, C) indices

    shuffled: C = valid rows, drawn from a permutation for each input; all: every combination. The permutations follow
    from the rows alone, so that they are the same in whatever processes and order the rows come.
    """
    rows = valid.nonzero().flatten()
    if negatives == "all":
        return torch.cartesian_prod(*[rows] * others).view(-1, others).T
    rows = rows[row[rows].argsort(stable=True)]
    lot = torch.Generator().manual_seed(int(row[rows].sum()))
    shuffles = [torch.randperm(len(rows), generator=lot) for _ in range(others)]
    return rows[torch.stack(shuffles).to(rows.device)]


def symile(
    mine: Embedded,
    everyone: Embedded,
    start: int,
    scale: Tensor,
    negatives: str = "shuffled",
    same_label_pairs: str = "exclude",
    chunk_rows: int = 1024,
) -> tuple[Tensor, Tensor]:
    """Cross-entropy of each input as the anchor of the others, mean over the inputs -> its sum over mine, their count.

    The score of x, y, z is scale * sqrt(D)^(N - 2) * sum(x * y * z): the root undoes that of N unit vectors it shrinks
    with the width, and for two inputs this is info_nce. Only rows with all inputs count. negatives: see candidates;
    same_label_pairs: of combinations all of whose rows have the anchor's label; the rest: see info_nce.
    """
    number, width = everyone.vectors.shape[1:]
    scale = scale * width ** ((number - 2) / 2)
    chosen = candidates(everyone.row, everyone.present.all(1), number - 1, negatives)

    def compute(part: Embedded, first: int) -> Tensor:
        _, item, label = positive_mask(part, everyone, start + first)
        item, label = (torch.stack([x[:, rows] for rows in chosen]).all(0) for x in (item, label))  # (b, C)
        truth = part.vectors.prod(1).sum(-1, keepdim=True)  # (b, 1)
        first_column = torch.ones_like(truth, dtype=torch.bool)
        positive = torch.cat([first_column, label & ~item & (same_label_pairs == "positive")], 1)
        negative = torch.cat([~first_column, ~label], 1)
        found = []
        for anchor in range(number):
            others = [i for i in range(number) if i != anchor]
            beside = torch.stack([everyone.vectors[rows, i] for rows, i in zip(chosen, others)]).prod(0)  # (C, D)
            logits = torch.cat([truth, part.vectors[:, anchor] @ beside.T], 1)
            found.append(cross_entropy_rows(scale * logits, positive, negative))
        return torch.where(part.present.all(1), torch.stack(found).mean(0), 0.0).sum()

    return sum_chunks(compute, mine, chunk_rows), mine.present.all(1).sum().to(scale.dtype)


class Symile(Configurable, nn.Module):
    """Contrast all inputs of a row at once; two of them alone need not lie close (Symile, Saporta 2024).

    Args:
        init_logit_scale: The factor of the similarities at the start, one over the temperature; it is learnt.
        max_logit_scale: The largest factor.
        negatives: "shuffled": the other inputs of random rows; "all": every combination of the rows' other inputs.
        same_label_pairs: What is done about combinations of rows that share `task.label`: "exclude" leaves them out of
            the negatives, "positive" makes them positives.
        chunk_rows: Number of rows whose scores are computed at once.

    Raises:
        ValueError: If an option is out of range.
    """

    logq_correction = False

    def __init__(
        self,
        init_logit_scale: float = 14.3,
        max_logit_scale: float = 100.0,
        negatives: str = "shuffled",
        same_label_pairs: str = "exclude",
        chunk_rows: int = 1024,
    ):
        super().__init__()
        check_options(same_label_pairs, chunk_rows)
        if negatives not in NEGATIVES:
            raise ValueError(f"task.loss.negatives: got '{negatives}', wanted one of {', '.join(NEGATIVES)}")
        self.temperature = Temperature(init_logit_scale, max_logit_scale)
        self.negatives = negatives
        self.same_label_pairs = same_label_pairs
        self.chunk_rows = chunk_rows

    def groups(self, inputs: int) -> list[tuple[int, ...]]:
        """Which of so many inputs are compared with one another."""
        return [tuple(range(inputs))]

    def forward(self, mine: Embedded, everyone: Embedded, start: int) -> dict[tuple[int, ...], tuple[Tensor, Tensor]]:
        """-> group of inputs -> (sum over mine, count)"""
        scale = self.temperature()
        found = symile(mine, everyone, start, scale, self.negatives, self.same_label_pairs, self.chunk_rows)
        return {tuple(range(mine.present.shape[1])): found}
