"""Average precision of multi-label predictions."""

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat, rank_zero_warn

from mm.configurable import Configurable
from mm.types import IGNORE

UNLABELLED = 2.0  # value in place of the probability of an unknown label


class LabelAveragePrecision(Metric, Configurable):
    """Macro mean of scikit-learn's `average_precision_score` over the labels, exact for any probabilities.

    The average precision of a label without a positive row is undefined. Such labels are left out of the mean, and a
    warning states their number. scikit-learn counts them as 0, as this metric does with `absent_as_zero`. The result is
    NaN if no label has a positive row, or if a probability is NaN.

    An exact result needs all probabilities until the end of the split: 4 bytes per row and label on the device of the
    model, and as much again for each subset of the inputs that is evaluated. `MultilabelAveragePrecision` of
    `torchmetrics.classification` needs less memory with `thresholds`, but returns about the base rate if the
    probabilities lie closer together than its thresholds.

    Args:
        num_labels: Number C of labels.
        absent_as_zero: Whether a label without a positive row counts as 0.
        **kwargs: Arguments of `torchmetrics.Metric`.
    """

    full_state_update = False
    higher_is_better = True
    signed: Any  # a list of tensors or a tensor, as in torchmetrics

    def __init__(self, num_labels: int, absent_as_zero: bool = False, **kwargs: Any):
        super().__init__(**kwargs)
        self.num_labels = num_labels
        self.absent_as_zero = absent_as_zero
        # The probabilities of all rows, concatenated, negative (also -0.0) if the label is not true. The state has one
        # dimension, because torchmetrics adds an empty tensor of one dimension in a process without rows.
        self.add_state("signed", [], dist_reduce_fx="cat")

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Store the probabilities of a batch.

        Args:
            preds: Probabilities, (N, C).
            target: 1, 0 or IGNORE (unknown), (N, C).
        """
        signed = torch.copysign(preds.detach().float(), target.float() - 0.5)
        self.signed.append(signed.masked_fill(target == IGNORE, UNLABELLED).flatten())

    def compute(self) -> Tensor:
        columns = dim_zero_cat(self.signed).view(-1, self.num_labels).unbind(1)
        each = torch.stack([average_precision(column[column != UNLABELLED]) for column in columns])
        absent = torch.tensor([not positive(column).any() for column in columns], device=each.device)
        if self.absent_as_zero:
            return each.masked_fill(absent & each.isinf(), 0.0).mean().float()
        if absent.any():
            rank_zero_warn(
                f"average precision: {int(absent.sum())} of {self.num_labels} labels have no positive row among those "
                "measured and are left out of its mean",
                UserWarning,
            )
        return each[~absent].mean().float()


def positive(signed: Tensor) -> Tensor:
    """Return whether a label is true for each row, (N,) bool, from its signed probabilities (N,)."""
    return ~signed.signbit() & (signed != UNLABELLED)


def average_precision(signed: Tensor) -> Tensor:
    """Compute the average precision of one label; equal probabilities are one threshold, as in scikit-learn.

    Args:
        signed: Probabilities of the labelled rows, negative for rows without the label, (N,).

    Returns:
        A float64 scalar; infinite if no row has the label, NaN if a probability is NaN.
    """
    truth = positive(signed)
    if signed.isnan().any():
        return torch.tensor(torch.nan, dtype=torch.double, device=signed.device)
    if not truth.any():
        return torch.tensor(torch.inf, dtype=torch.double, device=signed.device)
    chance, order = signed.abs().sort(descending=True)
    hits = truth[order].long().cumsum(0)  # cumsum of floats is not deterministic on a GPU
    last = torch.cat([chance[1:] != chance[:-1], chance.new_ones(1, dtype=torch.bool)])  # last of equal values
    hits, told = hits[last].double(), last.nonzero().flatten() + 1
    recall = hits / hits[-1]
    return (recall.diff(prepend=recall.new_zeros(1)) * hits / told).sum()
