"""Losses with equal weight for every row, even if a row was split into several windows."""

from typing import Any

import torch
from torch import Tensor

from mm.tensors import labelled, pick
from mm.types import Head


def row_loss(head: Head, prediction: Any, target: Tensor, fused: Any, sample: Tensor | None) -> tuple[Tensor, Tensor]:
    """Compute the loss of a head such that every row has the same weight, however many windows it was split into.

    The loss and the count of each window are divided by the number of labelled windows of the row. The loss of heads
    that predict one value per token is not divided, because each token belongs to exactly one window. The exception are
    such heads with `per_window`, whose loss counts windows.

    Args:
        head: The head.
        prediction: Output of the head for the B windows of a batch.
        target: Targets of the windows, (B, ...).
        fused: Fused Features of the windows.
        sample: Index in the batch of the sample that each window belongs to, (B,) int64; None: one window per sample.

    Returns:
        The sum of the loss, and the number of units that were summed, as `Head.loss` returns them.
    """
    if sample is None or (head.input is not None and not head.per_window):
        return head.loss(prediction, target, fused)
    known = labelled(target).long()
    windows = known.new_zeros(int(sample.max()) + 1).index_add(0, sample, known)[sample].clamp(min=1)
    total, count = torch.zeros(2, device=target.device).unbind()
    for size in windows.unique().tolist():
        rows = windows == size
        one, labels = head.loss(pick(prediction, rows), target[rows], pick(fused, rows))
        total, count = total + one / size, count + labels / size
    return total, count
