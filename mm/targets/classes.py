"""Target codec for classification with one class per row."""

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

MOST = 20  # up to so many different numbers with decimals may be classes, such as ratings


class ClassTarget(Configurable):
    """Encode the name of a class as its index; a row with an empty cell is unlabelled.

    The classes are those of the training rows, in sorted order, or those of a trained model. The number of training
    rows per class is stored as `counts`.
    """

    kind = "class"
    examples = ("zero", "one", "two", "one", "zero", "zero")

    def fit(self, cells: Sequence[Any], train: np.ndarray, known: TargetData | None) -> EncodedTarget:
        """Encode the cells of all rows; the values are the class indices, (N,) int64, with IGNORE for unlabelled rows.

        Args:
            cells: Cells of all rows, (N,).
            train: Whether each row is a training row, (N,) bool; classes and counts are those of the training rows.
            known: Target data of a trained model, whose classes are used instead; None: there is no such model.

        Raises:
            ValueError: If more than 20 labels of the training rows are mostly numbers with decimals, or mostly dates.
        """
        names, place = distinct(cells)  # each distinct cell is processed once
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
    """Return the description of a target of classes or labels, from which heads and metrics are built.

    Args:
        kind: Kind of the target codec, such as "class".
        classes: Class names, in the order of their indices.
        counts: Number of labelled training rows of each class, (C,).
    """
    number = len(classes)
    facts = {"counts": counts.tolist(), "num_classes": number, "num_labels": number}
    return TargetData(kind=kind, classes=tuple(classes), facts=facts)


def known_classes(known: TargetData | None, rows: Sequence[Sequence[str]]) -> tuple[list[str], str]:
    """Return the class names and a phrase about their origin for error messages.

    Args:
        known: Target data of a trained model, whose classes are used; None: use the labels of the training rows.
        rows: Labels of each training row.

    Returns:
        The class names in order, and "the model knows" or "training rows have".

    Raises:
        ValueError: If more than 20 labels of the training rows are mostly numbers with decimals, or mostly dates.
    """
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
    """Return the labels that are numbers if the labels look like measurements, else an empty list.

    Labels look like measurements if at least 90 % of them are numbers and some of these are not integers; integers may
    be names of classes.
    """
    numbers = [label for label in labels if form_of(label) == "number"]
    nearly = len(numbers) >= (1 - MOST_OTHERS) * len(labels)
    return numbers if nearly and not all(float(label).is_integer() for label in numbers) else []
