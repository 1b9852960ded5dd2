"""Symile, which compares all inputs of an item by the sum of their elementwise product (Saporta et al. 2024)."""

import torch
from torch import Tensor, nn

from mm.configurable import Configurable
from mm.losses.contrast import Temperature, check_options, cross_entropy_rows, positive_mask, sum_chunks
from mm.types import Embedded

NEGATIVES = ("shuffled", "all")


def candidates(row: Tensor, valid: Tensor, others: int, negatives: str) -> Tensor:
    """Return the rows whose other inputs are combined with an anchor, as indices (others, C).

    With "shuffled", C is the number of valid rows, and each other input is a random permutation of them. The
    permutations are seeded by the row numbers, so that they do not depend on the number of processes and on the order
    of the rows. With "all", C counts every combination of valid rows.

    Args:
        row: Row number of each row, (G,).
        valid: Whether each row has all inputs, (G,) bool.
        others: Number of inputs besides the anchor.
        negatives: "shuffled" or "all".
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
    """Compute the cross-entropy of each input as the anchor of the other inputs, averaged over the inputs.

    The score of N unit vectors of width D, one per input, is scale * sqrt(D)^(N - 2) times the sum over D of their
    elementwise product. The root keeps the magnitude of the score independent of D. With two inputs, this loss is that
    of `info_nce`. Rows that lack an input are left out.

    Args:
        mine: Rows of this process.
        everyone: Rows of all processes.
        start: Index of the first row of `mine` in `everyone`.
        scale: Factor of the similarities.
        negatives: Combinations that are compared with an anchor: "shuffled" or "all", see `candidates`.
        same_label_pairs: Treatment of combinations in which all rows have the label of the anchor: "exclude" leaves
            them out, "positive" makes them positives.
        chunk_rows: Number of rows whose scores are computed at a time.

    Returns:
        The sum of the loss over the rows of this process that have all inputs, and their number.
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
    """Contrastive loss over all inputs of a row together (Symile, Saporta et al. 2024).

    Unlike a loss of pairs, it does not require that any two inputs of a row are similar.

    Args:
        init_logit_scale: Initial factor of the similarities, one over the temperature; it is trained.
        max_logit_scale: Maximum of this factor.
        negatives: Negatives of an anchor: `shuffled` takes each other input from a random row, `all` takes every
            combination of the rows' other inputs.
        same_label_pairs: Treatment of combinations of rows with the same `task.label`: `exclude` does not use them as
            negatives, `positive` uses them as positives.
        chunk_rows: Number of rows whose scores are computed at a time.

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
        """Return the only group of inputs that are compared, all of them, by index, given the number of inputs."""
        return [tuple(range(inputs))]

    def forward(self, mine: Embedded, everyone: Embedded, start: int) -> dict[tuple[int, ...], tuple[Tensor, Tensor]]:
        """Compute the loss over all inputs.

        Args:
            mine: Rows of this process.
            everyone: Rows of all processes.
            start: Index of the first row of `mine` in `everyone`.

        Returns:
            For the group of all inputs, the sum of the loss over the rows of this process, and their number.
        """
        scale = self.temperature()
        found = symile(mine, everyone, start, scale, self.negatives, self.same_label_pairs, self.chunk_rows)
        return {tuple(range(mine.present.shape[1])): found}
