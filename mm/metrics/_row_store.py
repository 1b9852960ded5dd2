"""What metrics share that compare vectors of items, which have several sides each."""

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from mm.configurable import Configurable


class RowStore(Metric, Configurable):
    """Base class of metrics that keep the vectors of all rows.

    update: vectors (B, N, D) of unit length, present (B, N) bool, row (B,), and, where rows may hold the same, numbers
    of what each side holds, (B, N) int64.
    """

    full_state_update = False
    vectors: Any  # a list of tensors, or one, as torchmetrics has it
    present: Any
    row: Any
    content: Any

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)
        for name in ("vectors", "present", "row", "content"):
            self.add_state(name, [], dist_reduce_fx="cat")

    def update(self, vectors: Tensor, present: Tensor, row: Tensor, content: Tensor | None = None) -> None:
        if content is not None:
            self.content.append(content)
        self.vectors.append(vectors.detach())
        self.present.append(present)
        self.row.append(row)

    def seen(self) -> tuple[Tensor, Tensor, Tensor]:
        """Vectors, presence and rows of what this process has seen; of all of them within `sync_context`."""
        return dim_zero_cat(self.vectors), dim_zero_cat(self.present), dim_zero_cat(self.row)

    def contents(self) -> Tensor | None:
        """What each side of each row holds, (B, N) int64; None where `update` was not given it."""
        found = dim_zero_cat(self.content) if isinstance(self.content, Tensor) or self.content else torch.zeros(0)
        return found if found.numel() else None


def mask_nonfinite(values: dict[str, Tensor], *compared: Tensor) -> dict[str, Tensor]:
    """What was measured of vectors; NaN where any is not finite, as then nothing counts as closer than what it asks."""
    if all(vectors.isfinite().all() for vectors in compared):
        return values
    return {name: torch.full_like(value, torch.nan) for name, value in values.items()}
