"""Average precision of labels, of which a row has any number."""

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat, rank_zero_warn

from mm.configurable import Configurable
from mm.types import IGNORE

UNLABELLED = 2.0  # in place of a probability


class LabelAveragePrecision(Metric, Configurable):
    """The macro mean of scikit-learn's `average_precision_score`, exact for any probabilities.

    A label without a positive row has no precision at any recall: it has no part in the mean, and a warning says how
    many such labels there are. scikit-learn counts it as 0; `absent_as_zero` does so too. The result is NaN where no
    label has a positive row, or where a probability is NaN.

    Exactness needs every probability until the end of the split: 4 bytes per row and label on the model's device, and
    as much again for each subset of the inputs that is measured. `torchmetrics.classification`'s
    `MultilabelAveragePrecision` with `thresholds` needs less, but it is about the base rate where probabilities lie
    closer together than its thresholds.

    Args:
        num_labels: Labels, C.
        absent_as_zero: Whether a label without a positive row counts as 0.
        **kwargs: Arguments of `torchmetrics.Metric`.
    """

    full_state_update = False
    higher_is_better = True
    signed: Any  # a list of tensors, or one, as torchmetrics has it

    def __init__(self, num_labels: int, absent_as_zero: bool = False, **kwargs: Any):
        super().__init__(**kwargs)
        self.num_labels = num_labels
        self.absent_as_zero = absent_as_zero
        # Of all rows one after the other; negative (also -0.0) where the label is not true. One dimension, as
        # torchmetrics adds an empty one for a process without a row.
        self.add_state("signed", [], dist_reduce_fx="cat")

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Keep the probabilities of some rows.

        Args:
            preds: Probabilities, (N, C).
            target: 1 or 0, or `IGNORE` where a row is unlabelled, (N, C).
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
    """Return where a label is true. (N,) -> (N,) bool"""
    return ~signed.signbit() & (signed != UNLABELLED)


def average_precision(signed: Tensor) -> Tensor:
    """Compute one label's average precision; equal probabilities are one threshold, as in scikit-learn.

    Args:
        signed: Probabilities of the labelled rows, negative where the label is not true, (N,).

    Returns:
        A number, in float64; infinite where no row has the label, NaN where a probability is NaN.
    """
    truth = positive(signed)
    if signed.isnan().any():
        return torch.tensor(torch.nan, dtype=torch.double, device=signed.device)
    if not truth.any():
        return torch.tensor(torch.inf, dtype=torch.double, device=signed.device)
    chance, order = signed.abs().sort(descending=True)
    hits = truth[order].long().cumsum(0)  # of integers: that of floats is not deterministic on a GPU
    last = torch.cat([chance[1:] != chance[:-1], chance.new_ones(1, dtype=torch.bool)])  # of those that are equal
    hits, told = hits[last].double(), last.nonzero().flatten() + 1
    recall = hits / hits[-1]
    return (recall.diff(prepend=recall.new_zeros(1)) * hits / told).sum()
