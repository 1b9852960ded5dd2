"""The loss of rows, where a long row was read in several windows."""

from typing import Any

import torch
from torch import Tensor

from mm.tensors import labelled, pick
from mm.types import Head


def row_loss(head: Head, prediction: Any, target: Tensor, fused: Any, sample: Tensor | None) -> tuple[Tensor, Tensor]:
    """Compute a head's loss so that every row weighs the same, however many windows it was read in.

    The loss of each window, and its count, are divided by the number of labelled windows of its row. Heads that predict
    something of each token count tokens, each of which belongs to one window, and their loss stays as it is; but where
    such a head counts windows (`per_window`) it is divided as well.

    Args:
        head: The head.
        prediction: Its predictions of all windows of a batch.
        target: The windows' targets, (B, ...).
        fused: The windows' fused Features.
        sample: Of each window which sample of the batch it is of, (B,); None where every sample has one window.

    Returns:
        The sum over labelled rows, and how many they are, as `Head.loss`.
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
