"""Shared code of the contrastive losses: the logit scale, masks of positives, and computation in chunks."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mm.types import IGNORE, Embedded

SAME_LABEL_PAIRS = ("exclude", "positive")


class Temperature(nn.Module):
    """Trained logit scale, the factor of the similarities (one over the temperature).

    Its logarithm is the parameter. The scale is clamped to the range from 1 to `max_value`.

    Args:
        init_value: Initial scale.
        max_value: Maximum scale.

    Raises:
        ValueError: If not 1 <= init_value <= max_value.
    """

    def __init__(self, init_value: float, max_value: float):
        super().__init__()
        if not 1 <= init_value <= max_value:
            raise ValueError(
                f"task.loss: got init_logit_scale={init_value}, max_logit_scale={max_value}, wanted "
                "1 <= init_logit_scale <= max_logit_scale"
            )
        self.max_value = max_value
        self.log = nn.Parameter(torch.tensor([math.log(init_value)]))

    def forward(self) -> Tensor:
        """Clamp the parameter and return the scale, (1,)."""
        # Clamp the parameter itself, as CLIP does: a clamp in the graph would have no gradient beyond its bounds.
        with torch.no_grad():
            self.log.clamp_(0.0, math.log(self.max_value))
        return self.log.exp()


def check_options(same_label_pairs: str, chunk_rows: int) -> None:
    """Validate the options that all contrastive losses have.

    Raises:
        ValueError: If an option is out of range.
    """
    if same_label_pairs not in SAME_LABEL_PAIRS:
        wanted = ", ".join(SAME_LABEL_PAIRS)
        raise ValueError(f"task.loss.same_label_pairs: got '{same_label_pairs}', wanted one of {wanted}")
    if chunk_rows < 1:
        raise ValueError(f"task.loss.chunk_rows: got {chunk_rows}, wanted at least 1 row")


def positive_mask(mine: Embedded, everyone: Embedded, start: int) -> tuple[Tensor, Tensor, Tensor]:
    """Compare each row of this process with each row of all processes.

    Args:
        mine: The b rows of this process.
        everyone: The G rows of all processes.
        start: Index of the first row of `mine` in `everyone`.

    Returns:
        Whether two rows are the same entry of the batch, whether they are the same item, and whether they are the same
        item or have the same label, (b, G) bool each.
    """
    here, there = (torch.arange(len(x.row), device=mine.row.device) for x in (mine, everyone))
    own = here[:, None] + start == there
    item = own | (mine.row[:, None] == everyone.row)
    label = item | ((mine.label[:, None] == everyone.label) & (mine.label != IGNORE)[:, None])
    return own, item, label


def cross_entropy_rows(logits: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
    """Return the mean negative log-probability of each row's positives, (b,) (SupCon, Khosla et al. 2020).

    The probability is a softmax over the positives and negatives.

    Args:
        logits: Logits, (b, C).
        positive: Whether each candidate is a positive, (b, C); each row must have one.
        negative: Whether each candidate is a negative, (b, C).
    """
    total = logits.masked_fill(~(positive | negative), -torch.inf).logsumexp(1)
    return total - (logits * positive).sum(1) / positive.sum(1)


def sum_chunks(compute: Callable[[Embedded, int], Tensor], rows: Embedded, chunk_rows: int) -> Tensor:
    """Return the sum of `compute` over chunks of rows, with the activations of only one chunk in memory at a time.

    Args:
        compute: Function of a chunk and the index of its first row, which returns a scalar.
        rows: The rows.
        chunk_rows: Maximum number of rows of a chunk.
    """
    count = len(rows.row)
    if count <= chunk_rows:
        return compute(rows, 0)
    parts = [
        checkpoint(
            compute, Embedded(*(x[i : i + chunk_rows] for x in rows)), i, use_reentrant=False, preserve_rng_state=False
        )
        for i in range(0, count, chunk_rows)
    ]
    return torch.stack(parts).sum()
