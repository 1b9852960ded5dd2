"""Precision, recall and F1 of directed relations, as in SemEval-2010 task 8."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from mm.configurable import Configurable
from mm.extras import require
from mm.metrics._labels import inches, set_ticks
from mm.types import IGNORE


class Relations(Metric, Configurable):
    """Macro F1 over relations, which merges the two directions of a relation (Hendrickx et al. 2010).

    A prediction with the wrong direction is an error. `update` takes probabilities (N, C) and class indices (N,). The
    metrics are `f1`, `precision` and `recall`, which are macro averages, and "f1/<relation>".

    Args:
        classes: Names of the classes, such as Cause-Effect(e1,e2).
        other: Class of rows without a relation, which is left out of the averages.
        **kwargs: Arguments of `torchmetrics.Metric`.

    Raises:
        ValueError: If `other` is the only class.
    """

    full_state_update = False
    higher_is_better = True
    right: Tensor
    predicted: Tensor
    truth: Tensor

    def __init__(self, classes: Sequence[str], other: str = "Other", **kwargs: Any):
        super().__init__(**kwargs)
        kinds = [name.partition("(")[0] for name in classes]
        self.kinds = sorted({kind for kind, name in zip(kinds, classes) if name != other})
        if not self.kinds:
            raise ValueError(f"other: got '{other}', which leaves no relation of {', '.join(classes)}")
        # Rows without a relation are counted at the last index, which is not used.
        self.kind = torch.tensor([self.kinds.index(k) if k in self.kinds else len(self.kinds) for k in kinds])
        for name in ("right", "predicted", "truth"):
            self.add_state(name, torch.zeros(len(self.kinds) + 1), dist_reduce_fx="sum")

    def update(self, preds: Tensor, target: Tensor) -> None:
        predicted, kind = preds.argmax(1), self.kind.to(target.device)
        keep = target != IGNORE
        predicted, target = predicted[keep], target[keep]
        size = len(self.right)
        self.right += torch.bincount(kind[target[predicted == target]], minlength=size)
        self.predicted += torch.bincount(kind[predicted], minlength=size)
        self.truth += torch.bincount(kind[target], minlength=size)

    def compute(self) -> dict[str, Tensor]:
        precision = (self.right / self.predicted.clamp(min=1))[:-1]
        recall = (self.right / self.truth.clamp(min=1))[:-1]
        f1 = (2 * self.right / (self.predicted + self.truth).clamp(min=1))[:-1]
        each = {f"f1/{kind}": value for kind, value in zip(self.kinds, f1)}
        return {"f1": f1.mean(), "precision": precision.mean(), "recall": recall.mean()} | each

    def names(self) -> list[str]:
        return ["f1", "precision", "recall", *(f"f1/{kind}" for kind in self.kinds)]

    def figure(self) -> Any:
        """Draw a bar chart of the F1 of each relation, labelled with its number of rows."""
        Figure = require("matplotlib.figure", "plot").Figure  # slow to import, and rarely needed

        found = self.compute()
        drawn = Figure(figsize=(6.5, inches(1, 0.35, len(self.kinds))), layout="constrained")
        axes = drawn.add_subplot()
        axes.barh(range(len(self.kinds)), [float(found[f"f1/{kind}"]) for kind in self.kinds])
        labels = [f"{kind} ({int(count)})" for kind, count in zip(self.kinds, self.truth)]
        set_ticks(axes.yaxis, labels)
        axes.invert_yaxis()
        axes.set_xlim(0, 1)
        axes.set_xlabel("F1")
        axes.grid(axis="x", alpha=0.3)
        return drawn
