"""What contrastive losses share: a learnt temperature, which rows are alike, computing in blocks. Shapes: mm.types."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mm.types import IGNORE, Embedded

SAME_LABEL = ("exclude", "positive")


class Temperature(nn.Module):
    """What similarities are multiplied by, one over the temperature: learnt as its logarithm, kept in 1 to `most`."""

    def __init__(self, scale: float, most: float):
        super().__init__()
        if not 1 <= scale <= most:
            raise ValueError(f"task.loss: got scale={scale}, max_scale={most}, wanted 1 <= scale <= max_scale")
        self.most = most
        self.log = nn.Parameter(torch.tensor([math.log(scale)]))

    def forward(self) -> Tensor:
        """-> (1,)"""
        # The parameter itself, as CLIP does: beyond a clamp in the graph no gradient would bring it back.
        with torch.no_grad():
            self.log.clamp_(0.0, math.log(self.most))
        return self.log.exp()


def check_options(same_label: str, block: int) -> None:
    """Errors: ValueError for a value that means nothing."""
    if same_label not in SAME_LABEL:
        raise ValueError(f"task.loss.same_label: got '{same_label}', wanted one of {', '.join(SAME_LABEL)}")
    if block < 1:
        raise ValueError(f"task.loss.block: got {block}, wanted at least 1 row")


def alike(mine: Embedded, everyone: Embedded, start: int) -> tuple[Tensor, Tensor, Tensor]:
    """Which of everyone's rows is each of mine; is of the same item; is of the same item or label. -> (b, G) bool each

    start: where mine begin among everyone's.
    """
    here, there = (torch.arange(len(x.row), device=mine.row.device) for x in (mine, everyone))
    own = here[:, None] + start == there
    item = own | (mine.row[:, None] == everyone.row)
    label = item | ((mine.label[:, None] == everyone.label) & (mine.label != IGNORE)[:, None])
    return own, item, label


def contrast(logits: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
    """Mean over the positives of their negative log-probability among positives and negatives (SupCon, Khosla 2020).

    logits, positive, negative (b, C); every row has a positive -> (b,)
    """
    total = logits.masked_fill(~(positive | negative), -torch.inf).logsumexp(1)
    return total - (logits * positive).sum(1) / positive.sum(1)


def in_blocks(compute: Callable[[Embedded, int], Tensor], rows: Embedded, block: int) -> Tensor:
    """Sum of `compute(part, index of its first row)`, whose intermediate results are kept for one block at a time."""
    count = len(rows.row)
    if count <= block:
        return compute(rows, 0)
    parts = [
        checkpoint(
            compute, Embedded(*(x[i : i + block] for x in rows)), i, use_reentrant=False, preserve_rng_state=False
        )
        for i in range(0, count, block)
    ]
    return torch.stack(parts).sum()
