"""Precision, recall and F1 of complete entities, as seqeval computes them."""

from collections.abc import Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from mm.configurable import Configurable
from mm.extras import require
from mm.metrics._labels import inches, set_ticks
from mm.types import IGNORE


class Entities(Metric, Configurable):
    """Precision, recall and F1 of named entities as in seqeval (Tjong Kim Sang and De Meulder 2003).

    A predicted entity is right if its type, start and end are right.

    The metrics are `precision`, `recall` and `f1`, which are micro averages, `f1_macro` over the types that occur or
    are predicted, `token_accuracy`, and "f1/<type>", "precision/<type>", "recall/<type>", "support/<type>". With
    `scheme="plain"` each tag is a type and each word is counted, as in scikit-learn's report. In this case
    `token_accuracy` is the first metric, because all micro averages are equal to it.

    `update` takes predicted and true tag indices, (N, T) each. The true tags are IGNORE for padding. With
    `scheme="plain"`, a predicted tag is IGNORE if no tag was predicted for a word.

    Args:
        classes: Class names of the tags, in order.
        scheme: Scheme of the tags: `bio`, `iob1`, `bioes`, or `plain` for tags that are not entities.
        **kwargs: Arguments of `torchmetrics.Metric`.
    """

    full_state_update = False
    higher_is_better = True
    tags: list[Tensor]
    truth: list[Tensor]
    ends: list[Tensor]

    def __init__(self, classes: Sequence[str], scheme: str = "bio", **kwargs: Any):
        super().__init__(**kwargs)
        self.classes = list(classes)
        self.plain = scheme == "plain"
        self.types = self.classes if self.plain else sorted({tag[2:] for tag in self.classes if tag != "O"})
        # The tags of all texts, concatenated, and the length of each text. They are floats, because torchmetrics adds
        # an empty float tensor in a process without rows.
        for name in ("tags", "truth", "ends"):
            self.add_state(name, [], dist_reduce_fx="cat")

    def update(self, preds: Tensor, target: Tensor) -> None:
        words = target != IGNORE
        self.tags.append(preds[words].float())
        self.truth.append(target[words].float())
        self.ends.append(words.sum(1).float())

    def compute(self) -> dict[str, Tensor]:
        classification_report = require("seqeval.metrics", "tagging").classification_report  # slow to import

        lengths = dim_zero_cat(self.ends).long().tolist()
        predicted, truth = (
            [[self.classes[int(i)] if i >= 0 else "" for i in text] for text in dim_zero_cat(x).split(lengths)]
            for x in (self.tags, self.truth)
        )
        right = (dim_zero_cat(self.tags) == dim_zero_cat(self.truth)).float().mean()
        if self.plain:
            return self.report([*chain(*predicted)], [*chain(*truth)]) | {"token_accuracy": right}
        # seqeval raises an error if there is no entity at all.
        some = any(tag != "O" for text in (*predicted, *truth) for tag in text)
        how: Any = {"output_dict": True, "zero_division": 0}
        report: Any = classification_report(truth, predicted, **how) if some else {}
        nothing = {"precision": 0.0, "recall": 0.0, "f1-score": 0.0, "support": 0}
        micro = report.get("micro avg", nothing)
        found = {"precision": micro["precision"], "recall": micro["recall"], "f1": micro["f1-score"]}
        found["f1_macro"] = report.get("macro avg", nothing)["f1-score"]
        for kind in self.types:
            row = report.get(kind, nothing)
            found |= {f"{name}/{kind}": row[name] for name in ("precision", "recall", "support")}
            found[f"f1/{kind}"] = row["f1-score"]
        return {name: torch.tensor(float(value)) for name, value in found.items()} | {"token_accuracy": right}

    def report(self, predicted: Sequence[str], truth: Sequence[str]) -> dict[str, Tensor]:
        """Return precision, recall, F1 and support of each tag, and the mean F1 of the true and predicted tags."""
        from sklearn.metrics import precision_recall_fscore_support  # slow to import, needed by this metric only

        how: Any = {"labels": self.types, "zero_division": 0}
        rows: Any = precision_recall_fscore_support(truth, predicted, **how)
        names = ("precision", "recall", "f1", "support")
        found = {f"{n}/{kind}": float(x) for n, row in zip(names, rows) for kind, x in zip(self.types, row)}
        occur = {*predicted, *truth} - {""}
        found["f1_macro"] = sum(found[f"f1/{kind}"] for kind in occur) / max(1, len(occur))
        return {name: torch.tensor(value) for name, value in found.items()}

    def names(self) -> list[str]:
        each = [f"{name}/{kind}" for kind in self.types for name in ("precision", "recall", "support", "f1")]
        if self.plain:
            return ["token_accuracy", "f1_macro", *each]
        return ["f1", "precision", "recall", "f1_macro", *each, "token_accuracy"]

    def figure(self) -> Any:
        """Draw a bar chart of the precision, recall and F1 of each type, labelled with its support."""
        Figure = require("matplotlib.figure", "plot").Figure  # slow to import, and rarely needed

        found = self.compute()
        drawn = Figure(figsize=(6.5, inches(1.2, 0.5, len(self.types))), layout="constrained")
        axes = drawn.add_subplot()
        for i, name in enumerate(("precision", "recall", "f1")):
            places = [row + 0.25 * (i - 1) for row in range(len(self.types))]
            axes.barh(places, [float(found[f"{name}/{kind}"]) for kind in self.types], height=0.22, label=name)
        labels = [f"{kind} ({int(found[f'support/{kind}'])})" for kind in self.types]
        set_ticks(axes.yaxis, labels)
        axes.invert_yaxis()
        axes.set_xlim(0, 1)
        axes.grid(axis="x", alpha=0.3)
        axes.legend(fontsize=8)
        return drawn
