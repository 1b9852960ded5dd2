"""Sigmoid loss of pairs of inputs, which classifies whether two items belong together (SigLIP, Zhai et al. 2023)."""

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
    """Compute -log sigmoid(z (scale x.y + bias)) of all pairs of rows; z is 1 for positives and -1 for negatives.

    A row that lacks an input is left out.

    Args:
        mine: Rows of this process.
        everyone: Rows of all processes.
        start: Index of the first row of `mine` in `everyone`.
        pair: Indices of the two inputs to compare.
        scale: Factor of the similarities.
        bias: Bias of the logits.
        same_label_pairs: Treatment of rows with the same label: "exclude" leaves them out, "positive" makes them
            positives.
        chunk_rows: Number of rows of `everyone` whose similarities are computed at a time.

    Returns:
        The sum of the loss over pairs of a row of this process and any row, and the number of rows of this process that
        have both inputs.
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
    """Sigmoid loss of each pair of inputs (SigLIP, Zhai et al. 2023).

    Args:
        init_logit_scale: Initial factor of the similarities, one over the temperature; it is trained.
        max_logit_scale: Maximum of this factor.
        bias: Initial bias that is added to the scaled similarities; it is trained.
        same_label_pairs: Treatment of rows with the same `task.label`: `exclude` does not use them as negatives of each
            other, `positive` uses them as positives.
        chunk_rows: Number of rows of all processes whose similarities to the rows of this process are computed at a
            time.

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
            pair: siglip(mine, everyone, start, pair, scale, self.bias, self.same_label_pairs, self.chunk_rows)
            for pair in self.groups(mine.present.shape[1])
        }
