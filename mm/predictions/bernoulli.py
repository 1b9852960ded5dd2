"""Prediction of any number of several labels."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from mm.predictions.base import Decoding, Prediction
from mm.types import IGNORE


class BernoulliFields(NamedTuple):
    """Tensors of `Bernoulli`."""

    logits: Tensor  # (B, C)


class Bernoulli(Prediction, BernoulliFields):
    """Logits (B, C) of C independent labels.

    A target is (B, C) int64 with the values 0, 1 and IGNORE.
    """

    __slots__ = ()
    calibration = "temperature"
    has_sets = True

    def merge(self, group: Tensor, count: int) -> "Bernoulli":
        """Average the logits of the windows of each row."""
        member = F.one_hot(group, count).T.float()  # (count, B)
        return Bernoulli(member @ self.logits.float() / member.sum(1, keepdim=True))

    def decode(self, decoding: Decoding, meta: Mapping[str, Tensor]) -> list[dict[str, Any]]:
        """Return {"prediction": [label, ...], "probability": {label: 0..1}} per row."""
        classes = decoding.class_names(self.logits.shape[1])
        rows = []
        for row in self.logits.float().sigmoid().tolist():
            probability = dict(zip(classes, row, strict=True))
            chosen = [label for label, p in probability.items() if p >= decoding.threshold]
            rows.append({"prediction": chosen, "probability": probability})
        return rows

    def metric_inputs(self, target: Tensor) -> tuple[Tensor, Tensor]:
        """Return the probabilities and the labels of the rows that have at least one known label.

        Args:
            target: Labels 0, 1 or IGNORE (unknown), (B, C).

        Returns:
            Probabilities (N, C) and labels (N, C) of the N rows with a known label. The labels may contain IGNORE.
        """
        labelled = (target != IGNORE).any(1)
        return self.logits[labelled].float().sigmoid(), target[labelled]

    def temper(self, temperature: float) -> "Bernoulli":
        return Bernoulli(self.logits.float() / temperature)

    def events(self, target: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits (N, C, 1) and labels (N, C) of the N labelled rows: one binary sub-target per label."""
        labelled = (target != IGNORE).any(1)
        return self.logits[labelled].float().unsqueeze(-1), target[labelled]

    def nonconformity(self, target: Tensor, decoding: Decoding) -> Tensor:
        """Return the nonconformity scores of the true value of each label, (N, C); NaN if the label is unknown."""
        labelled = (target != IGNORE).any(1)
        target = target[labelled]
        no, yes = binary_lac_scores(self.logits[labelled], decoding.threshold)
        return torch.where(target == IGNORE, torch.nan, torch.where(target == 1, yes, no))

    def prediction_sets(
        self, quantiles: Sequence[float], decoding: Decoding, meta: Mapping[str, Tensor]
    ) -> tuple[list[dict[str, Any]], Tensor]:
        """Return {"prediction_set": {label: [False, True]}} per row, and the mean size of the sets of its labels, (B,).

        A value (False or True) is left out of the set of its label if its nonconformity score exceeds the quantile.
        """
        classes = decoding.class_names(self.logits.shape[1])
        limit = torch.tensor(list(quantiles), device=self.logits.device)
        scores = torch.stack(binary_lac_scores(self.logits, decoding.threshold), dim=-1)
        inside = scores <= limit.unsqueeze(-1)  # (B, C, 2)
        rows = [
            {"prediction_set": {c: [bool(i) for i in (0, 1) if both[i]] for c, both in zip(classes, row, strict=True)}}
            for row in inside.tolist()
        ]
        return rows, inside.sum(-1).float().mean(1)


def binary_lac_scores(logits: Tensor, threshold: float) -> tuple[Tensor, Tensor]:
    """Return the nonconformity scores of the values 0 and 1 of each label, (B, C) each.

    The score of a value is 1 minus its probability (LAC, Sadinle et al. 2019), but 0 for the predicted value.
    """
    p = logits.float().sigmoid()
    chosen = p >= threshold
    return p.masked_fill(~chosen, 0.0), (1 - p).masked_fill(chosen, 0.0)
