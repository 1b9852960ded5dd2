"""One of several classes."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mm.cells import distinct, label_of, text_fault
from mm.cells.classes import ClassIndex, class_number, one_form, sort_classes
from mm.cells.numbers import MOST_OTHERS, form_of
from mm.configurable import Configurable
from mm.types import IGNORE, EncodedTarget, TargetData

MOST = 20  # numbers with a point that may be classes, such as ratings


class ClassTarget(Configurable):
    """A cell is the name of a class; an empty one is unlabelled.

    The classes are those of the training rows, in order, and `counts` says how many rows each has; a trained model
    keeps its own.
    """

    kind = "class"
    examples = ("zero", "one", "two", "one", "zero", "zero")

    def fit(self, cells: Sequence[Any], train: np.ndarray, known: TargetData | None) -> EncodedTarget:
        """-> (N,) int64"""
        names, place = distinct(cells)  # all is done once for each different cell
        classes, of = known_classes(known, [[names[i]] for i in np.unique(place[train]).tolist() if names[i]])
        index = ClassIndex(classes)
        numbers, wrong = np.full(len(names), IGNORE), {}
        for i, name in enumerate(names):
            try:
                if name:
                    numbers[i] = class_number(name, index, of)
            except ValueError as error:
                wrong[i] = str(error)
        targets = torch.from_numpy(numbers[place])
        faulty = np.flatnonzero(np.isin(place, list(wrong))) if wrong else ()
        faults = {int(row): wrong[int(place[row])] for row in faulty}
        labelled = targets[torch.from_numpy(train)]
        counts = torch.bincount(labelled[labelled != IGNORE], minlength=len(classes))
        return EncodedTarget(targets, class_target_data(self.kind, classes, counts), faults)

    def strata(self, cell: Any) -> str:
        return label_of(cell)

    def decode(self, target: Tensor, data: TargetData) -> str | None:
        return data.classes[int(target)] if int(target) >= 0 else None


def class_target_data(kind: str, classes: Sequence[str], counts: Tensor) -> TargetData:
    """Return what heads of classes, and their metrics, read.

    Args:
        kind: Kind of the target.
        classes: Class names, in order.
        counts: Number of labelled training rows of each class, (C,).
    """
    number = len(classes)
    facts = {"counts": counts.tolist(), "num_classes": number, "num_labels": number}
    return TargetData(kind=kind, classes=tuple(classes), facts=facts)


def known_classes(known: TargetData | None, rows: Sequence[Sequence[str]]) -> tuple[list[str], str]:
    """Those of the model, else of the training rows; and whose they are, for messages."""
    if known is not None:
        return list(known.classes), "the model knows"
    spelled = {name for names in rows for name in names if text_fault(name) is None}
    found = sort_classes({*one_form(spelled).values()})
    numbers = measured(found) if len(found) > MOST else []
    if numbers:
        others = len(found) - len(numbers)
        odd = f" (and {others} that are none, such as '{next(x for x in found if x not in numbers)}')" if others else ""
        raise ValueError(
            f"got {len(numbers)} different numbers, such as {numbers[0]} and {numbers[-1]}{odd}, wanted classes; to "
            "tell a number choose model/heads=regression, or +model/heads@model.heads.NAME=regression of several"
        )
    dates = [name for name in found if form_of(name) == "date"] if len(found) > MOST else []
    if len(dates) > len(found) / 2:
        raise ValueError(
            f"got {len(dates)} different dates or times, such as {dates[0]}, each of which would be a class; write "
            "them as numbers for model/heads=regression, or as classes, such as the year"
        )
    return found, "training rows have"


def measured(labels: Sequence[str]) -> list[str]:
    """The numbers among the labels, where nearly all are and some are not whole, as names may be; else none."""
    numbers = [label for label in labels if form_of(label) == "number"]
    nearly = len(numbers) >= (1 - MOST_OTHERS) * len(labels)
    return numbers if nearly and not all(float(label).is_integer() for label in numbers) else []
