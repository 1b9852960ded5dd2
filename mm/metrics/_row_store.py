"""Base class of the metrics that compare vectors of different inputs across all rows."""

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from mm.configurable import Configurable


class RowStore(Metric, Configurable):
    """Base class of metrics that store the vectors of all rows until the end of a split.

    The arguments of `update` are:

        vectors: Unit vectors of the N inputs (or towers of inputs) of each row, (B, N, D).
        present: Whether each row has each input, (B, N) bool.
        row: Row numbers, (B,).
        content: Content IDs of each input, (B, N) int64, if several rows can have the same content. Equal IDs mean
            equal content.
    """

    full_state_update = False
    vectors: Any  # a list of tensors or a tensor, as in torchmetrics
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
        """Return the vectors, presence and row numbers of this process, or within `sync_context` of all processes."""
        return dim_zero_cat(self.vectors), dim_zero_cat(self.present), dim_zero_cat(self.row)

    def contents(self) -> Tensor | None:
        """Return the content IDs of each input of each row, (B, N) int64, or None if `update` did not receive them."""
        found = dim_zero_cat(self.content) if isinstance(self.content, Tensor) or self.content else torch.zeros(0)
        return found if found.numel() else None


def mask_nonfinite(values: dict[str, Tensor], *compared: Tensor) -> dict[str, Tensor]:
    """Return the metrics unchanged, or NaN for all of them if any of the compared vectors is not finite.

    Comparisons with NaN are False, so that no wrong item would count as closer than the right one.

    Args:
        values: Metric name to value.
        *compared: The vectors from which the metrics were computed.
    """
    if all(vectors.isfinite().all() for vectors in compared):
        return values
    return {name: torch.full_like(value, torch.nan) for name, value in values.items()}
