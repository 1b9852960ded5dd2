"""Precision, recall and F1 of every class, and the confusion matrix as a picture."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

NUMBERS_UP_TO = 30  # classes: above it a cell is smaller than its number


def rates(confusion: Tensor) -> dict[str, Tensor]:
    """Precision, recall and F1 per class; zero where undefined. (C, C) rows are truth -> (C,) each"""
    hit = confusion.diagonal().double()
    truth, predicted = confusion.sum(1), confusion.sum(0)
    return {
        "precision": hit / predicted.clamp(min=1),
        "recall": hit / truth.clamp(min=1),
        "f1": 2 * hit / (truth + predicted).clamp(min=1),
    }


class ClassificationReport(Metric):
    """scikit-learn's classification_report over all classes, with zero_division=0.

    update: probabilities or logits (N, C), classes (N,). Its names: "precision/<class>", "support/<class>",
    "precision_macro", "precision_micro", "precision_weighted"; the same of recall and f1.
    """

    full_state_update = False
    higher_is_better = True
    confusion: Tensor  # (C, C) rows seen of [true class, predicted class]

    def __init__(self, classes: Sequence[str], **kwargs: Any):
        super().__init__(**kwargs)
        self.classes = list(classes)
        n = len(self.classes)
        self.add_state("confusion", torch.zeros(n, n, dtype=torch.long), dist_reduce_fx="sum")

    def update(self, preds: Tensor, target: Tensor) -> None:
        n = len(self.classes)
        # One matrix product, not bincount: that one has no deterministic kernel on a GPU.
        truth, told = (torch.nn.functional.one_hot(x, n).float() for x in (target, preds.argmax(-1)))
        with torch.autocast(target.device.type, enabled=False):  # in bfloat16 301 rows would be 300
            self.confusion += (truth.T @ told).long()

    def compute(self) -> dict[str, Tensor]:
        truth = self.confusion.sum(1)  # (C,)
        total = truth.sum().clamp(min=1)
        result = {}
        for name, value in rates(self.confusion).items():
            result |= {f"{name}/{label}": value[i].float() for i, label in enumerate(self.classes)}
            result[f"{name}_macro"] = value.mean().float()
            result[f"{name}_micro"] = (self.confusion.trace() / total).float()  # the same for all three: accuracy
            result[f"{name}_weighted"] = ((value * truth).sum() / total).float()
        return result | {f"support/{label}": truth[i].float() for i, label in enumerate(self.classes)}

    def names(self) -> list[str]:
        """Keys of what it computes."""
        means = [f"{name}_{mean}" for name in ("precision", "recall", "f1") for mean in ("macro", "micro", "weighted")]
        return means + [f"{name}/{c}" for name in ("precision", "recall", "f1", "support") for c in self.classes]

    def figure(self) -> Any:
        """The confusion matrix: counts in the cells, coloured by the share of the true class."""
        from matplotlib.figure import Figure  # slow to import, and seldom drawn

        counts = self.confusion.cpu()
        n = len(self.classes)
        share = (counts / counts.sum(1, keepdim=True).clamp(min=1)).numpy()
        small = 9 if n <= NUMBERS_UP_TO else 5
        inches = max(4.0, (0.42 if n <= NUMBERS_UP_TO else 0.11) * n + 2)
        figure = Figure(figsize=(inches + 1, inches), layout="constrained")
        axes = figure.add_subplot()
        image = axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
        figure.colorbar(image, ax=axes, label="share of the true class", fraction=0.046, pad=0.02)
        axes.set_xticks(range(n), self.classes, rotation=90, fontsize=small)
        axes.set_yticks(range(n), self.classes, fontsize=small)
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
