"""Precision, recall and F1 of each class, and a figure of the confusion matrix."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from mm.configurable import Configurable
from mm.extras import require
from mm.metrics._labels import INCHES, set_ticks

NUMBERS_UP_TO = 30  # maximum number of classes for which the cells have room for numbers
MATRIX_UP_TO = 1000  # maximum number of classes; a larger matrix takes more memory than the rows


class ClassificationReport(Metric, Configurable):
    """Metrics of scikit-learn's `classification_report`, with `zero_division=0`.

    The metrics are "precision/<class>", "precision_macro", "precision_micro", "precision_weighted", the same of recall
    and F1, and "support/<class>". The macro averages are over the classes that have a true or a predicted row, as in
    torchmetrics and seqeval. scikit-learn's `f1_score(labels=all_classes)` counts a class that does not occur as zero,
    as this metric does with `absent_as_zero`.

    Args:
        classes: Class names, by class index.
        absent_as_zero: Whether classes without a true and without a predicted row count as zero in macro averages.
        **kwargs: Arguments of `torchmetrics.Metric`.
    """

    full_state_update = False
    higher_is_better = True
    hit: Tensor  # (C,) number of rows of each class that were predicted right
    truth: Tensor  # (C,) number of rows of each class
    predicted: Tensor  # (C,) number of rows for which each class was predicted
    confusion: Tensor  # (C, C) number of rows by true and predicted class; absent above MATRIX_UP_TO

    def __init__(self, classes: Sequence[str], absent_as_zero: bool = False, **kwargs: Any):
        super().__init__(**kwargs)
        self.classes = list(classes)
        self.absent_as_zero = absent_as_zero
        n = len(self.classes)
        for name in ("hit", "truth", "predicted"):
            self.add_state(name, torch.zeros(n, dtype=torch.long), dist_reduce_fx="sum")
        if n <= MATRIX_UP_TO:
            self.add_state("confusion", torch.zeros(n, n, dtype=torch.long), dist_reduce_fx="sum")

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Count the rows of a batch.

        Args:
            preds: Probabilities or logits, (N, C).
            target: Class indices, (N,).
        """
        n = len(self.classes)
        answer = preds.argmax(-1)
        if n <= MATRIX_UP_TO:
            # A matrix product, because bincount has no deterministic kernel on a GPU.
            true, told = (torch.nn.functional.one_hot(x, n).float() for x in (target, answer))
            with torch.autocast(target.device.type, enabled=False):  # in bfloat16 301 rows would be 300
                counts = (true.T @ told).long()
            self.confusion += counts
            self.hit += counts.diagonal()
            self.truth += counts.sum(1)
            self.predicted += counts.sum(0)
            return
        self.hit += count(target[answer == target], n)
        self.truth += count(target, n)
        self.predicted += count(answer, n)

    def compute(self) -> dict[str, Tensor]:
        total = self.truth.sum().clamp(min=1)
        counted = torch.ones_like(self.truth, dtype=torch.bool)
        if not self.absent_as_zero:
            counted = self.truth + self.predicted > 0
        result = {}
        for name, value in rates(self.hit, self.truth, self.predicted).items():
            single = value.float().unbind()
            result |= {f"{name}/{label}": single[i] for i, label in enumerate(self.classes)}
            result[f"{name}_macro"] = (value[counted].mean() if counted.any() else value.mean()).float()
            result[f"{name}_micro"] = (self.hit.sum() / total).float()  # the accuracy, for all three
            result[f"{name}_weighted"] = ((value * self.truth).sum() / total).float()
        support = self.truth.float().unbind()
        return result | {f"support/{label}": support[i] for i, label in enumerate(self.classes)}

    def names(self) -> list[str]:
        """Return the names of the metrics that `compute` returns."""
        means = [f"{name}_{mean}" for name in ("precision", "recall", "f1") for mean in ("macro", "micro", "weighted")]
        return means + [f"{name}/{c}" for name in ("precision", "recall", "f1", "support") for c in self.classes]

    def figure(self) -> Any:
        """Draw the confusion matrix, with counts in the cells and the fraction of the true class as colour.

        Returns:
            A matplotlib figure of at most 20 inches; None if there are more than 1,000 classes.
        """
        Figure = require("matplotlib.figure", "plot").Figure  # slow to import, and rarely needed

        n = len(self.classes)
        if n > MATRIX_UP_TO:
            return None
        counts = self.confusion.cpu()
        share = (counts / counts.sum(1, keepdim=True).clamp(min=1)).numpy()
        small = 9 if n <= NUMBERS_UP_TO else 5
        inches = min(INCHES, max(4.0, (0.42 if n <= NUMBERS_UP_TO else 0.11) * n + 2))
        figure = Figure(figsize=(inches + 1, inches), layout="constrained")
        axes = figure.add_subplot()
        image = axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
        figure.colorbar(image, ax=axes, label="fraction of the true class", fraction=0.046, pad=0.02)
        set_ticks(axes.xaxis, self.classes, rotation=90, fontsize=small)
        set_ticks(axes.yaxis, self.classes, fontsize=small)
        axes.set_xlabel("predicted")
        axes.set_ylabel("true")
        if n <= NUMBERS_UP_TO:
            for i in range(n):
                for j in range(n):
                    colour = "white" if share[i, j] > 0.6 else "black"
                    axes.text(
                        j, i, str(counts[i, j].item()), ha="center", va="center", fontsize=small - 1, color=colour
                    )
        return figure


def count(classes: Tensor, n: int) -> Tensor:
    """Return how often each of n classes occurs, (n,), with a kernel that is deterministic on a GPU as well."""
    found, times = classes.unique(return_counts=True)
    return torch.zeros(n, dtype=torch.long, device=classes.device).index_put((found,), times)


def rates(hit: Tensor, truth: Tensor, predicted: Tensor) -> dict[str, Tensor]:
    """Return the precision, recall and F1 of each class, (C,) each, with zeros where they are undefined.

    Args:
        hit: Number of rows of each class whose class was predicted, (C,).
        truth: Number of rows of each class, (C,).
        predicted: Number of rows for which each class was predicted, (C,).
    """
    right = hit.double()
    return {
        "precision": right / predicted.clamp(min=1),
        "recall": right / truth.clamp(min=1),
        "f1": 2 * right / (truth + predicted).clamp(min=1),
    }
