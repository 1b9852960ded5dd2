"""Parts of contrastive losses: a learnt temperature, the masks of positives, computing in chunks. Shapes: mm.types."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mm.types import IGNORE, Embedded

SAME_LABEL_PAIRS = ("exclude", "positive")


class Temperature(nn.Module):
    """The factor of similarities, one over the temperature; its logarithm is learnt, and it stays in 1 to `max_value`.

    Args:
        init_value: The factor at the start.
        max_value: The largest factor.

    Raises:
        ValueError: If the values are not in order.
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
        """-> (1,)"""
        # The parameter itself, as CLIP does: beyond a clamp in the graph no gradient would bring it back.
        with torch.no_grad():
            self.log.clamp_(0.0, math.log(self.max_value))
        return self.log.exp()


def check_options(same_label_pairs: str, chunk_rows: int) -> None:
    """Check the options that all contrastive losses have.

    Raises:
        ValueError: If one is out of range.
    """
    if same_label_pairs not in SAME_LABEL_PAIRS:
        wanted = ", ".join(SAME_LABEL_PAIRS)
        raise ValueError(f"task.loss.same_label_pairs: got '{same_label_pairs}', wanted one of {wanted}")
    if chunk_rows < 1:
        raise ValueError(f"task.loss.chunk_rows: got {chunk_rows}, wanted at least 1 row")


def positive_mask(mine: Embedded, everyone: Embedded, start: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return which of all rows is each row of this process, is of the same item, is of the same item or label.

    Args:
        mine: b rows of this process.
        everyone: G rows of all processes.
        start: Index of the first row of `mine` among those of `everyone`.

    Returns:
        (b, G) bool each.
    """
    here, there = (torch.arange(len(x.row), device=mine.row.device) for x in (mine, everyone))
    own = here[:, None] + start == there
    item = own | (mine.row[:, None] == everyone.row)
    label = item | ((mine.label[:, None] == everyone.label) & (mine.label != IGNORE)[:, None])
    return own, item, label


def cross_entropy_rows(logits: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
    """Mean over the positives of their negative log-probability among positives and negatives (SupCon, Khosla 2020).

    logits, positive, negative (b, C); every row has a positive -> (b,)
    """
    total = logits.masked_fill(~(positive | negative), -torch.inf).logsumexp(1)
    return total - (logits * positive).sum(1) / positive.sum(1)


def sum_chunks(compute: Callable[[Embedded, int], Tensor], rows: Embedded, chunk_rows: int) -> Tensor:
    """Sum `compute(part, index of its first row)` over chunks of rows; one chunk at a time holds its activations."""
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
