"""Prediction of one of several classes."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch.nn.functional as F
from torch import Tensor

from mm.predictions.base import Decoding, Prediction
from mm.types import IGNORE


class CategoricalFields(NamedTuple):
    """Tensors of `Categorical`."""

    logits: Tensor  # (B, C)


class Categorical(Prediction, CategoricalFields):
    """Logits (B, C) of C classes, exactly one of which is true.

    A target is (B,) int64 with class indices.
    """

    __slots__ = ()
    calibration = "temperature"
    has_sets = True

    def merge(self, group: Tensor, count: int) -> "Categorical":
        """Average the log-probabilities of the windows of each row."""
        member = F.one_hot(group, count).T.float()  # (count, B)
        return Categorical(member @ self.logits.float().log_softmax(-1) / member.sum(1, keepdim=True))

    def decode(self, decoding: Decoding, meta: Mapping[str, Tensor]) -> list[dict[str, Any]]:
        """Return {"prediction": class, "probability": {class: 0..1}} per row."""
        classes = decoding.class_names(self.logits.shape[1])
        return [
            {"prediction": classes[row.argmax()], "probability": dict(zip(classes, row.tolist(), strict=True))}
            for row in self.logits.float().softmax(-1).cpu()
        ]

    def metric_inputs(self, target: Tensor) -> tuple[Tensor, Tensor]:
        """Return the probabilities (N, C) and the class indices (N,) of the labelled rows."""
        labelled = target != IGNORE
        # Not logits: if all of them happen to lie in 0..1, torchmetrics would treat them as probabilities.
        return self.logits[labelled].float().softmax(-1), target[labelled]

    def temper(self, temperature: float) -> "Categorical":
        return Categorical(self.logits.float() / temperature)

    def events(self, target: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logits (N, 1, C) and the class indices (N, 1) of the labelled rows."""
        labelled = target != IGNORE
        return self.logits[labelled].float().unsqueeze(1), target[labelled].unsqueeze(1)

    def nonconformity(self, target: Tensor, decoding: Decoding) -> Tensor:
        """Return the nonconformity score of the true class of each labelled row, (N, 1)."""
        labelled = target != IGNORE
        return lac_scores(self.logits[labelled]).gather(1, target[labelled].unsqueeze(1))

    def prediction_sets(
        self, quantiles: Sequence[float], decoding: Decoding, meta: Mapping[str, Tensor]
    ) -> tuple[list[dict[str, Any]], Tensor]:
        """Return {"prediction_set": [class, ...]} per row, and the number of classes in each set, (B,).

        The classes are sorted by descending probability.
        """
        classes = decoding.class_names(self.logits.shape[1])
        scores = lac_scores(self.logits)
        size = (scores <= quantiles[0]).sum(1)
        order = scores.argsort(1).tolist()
        rows = [
            {"prediction_set": [classes[i] for i in best[:count]]}
            for best, count in zip(order, size.tolist(), strict=True)
        ]
        return rows, size


def lac_scores(logits: Tensor) -> Tensor:
    """Return the nonconformity score of each class: (B, C) -> (B, C).

    The score is 1 minus the probability of the class (LAC, Sadinle et al. 2019), but 0 for the most probable class, so
    that no prediction set is empty.
    """
    p = logits.float().softmax(-1)
    return (1 - p).scatter(1, p.argmax(1, keepdim=True), 0.0)
