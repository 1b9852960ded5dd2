"""One of several classes."""

from collections.abc import Sequence
from contextlib import suppress
from math import isfinite
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mm.messages import listing, near
from mm.transforms.target.cells import text_of, undecodable
from mm.transforms.target.numberlike import MOST_OTHERS, form_of
from mm.types import IGNORE, TargetData, TargetRead

MOST = 20  # numbers with a point that may be classes, such as ratings


class Classes:
    """A cell is the name of a class; an empty one is unlabelled.

    The classes are those of the training rows, in order, and `counts` says how many rows each has; a trained model
    keeps its own.
    """

    kind = "class"
    examples = ("zero", "one", "two", "one", "zero", "zero")

    def learn(self, cells: Sequence[Any], train: np.ndarray, known: TargetData | None) -> TargetRead:
        """-> (N,) int64"""
        names = [text_of(cell) for cell in cells]
        classes, of = known_classes(known, [[names[row]] if names[row] else [] for row in np.flatnonzero(train)])
        index = {name: i for i, name in enumerate(classes)}
        targets, faults = torch.full((len(names),), IGNORE), {}
        for row, name in enumerate(names):
            try:
                if name:
                    targets[row] = find(name, index, of)
            except ValueError as error:
                faults[row] = str(error)
        labelled = targets[torch.from_numpy(train)]
        counts = torch.bincount(labelled[labelled != IGNORE], minlength=len(classes))
        return TargetRead(targets, told(self.kind, classes, counts), faults)

    def strata(self, cell: Any) -> str:
        return text_of(cell)

    def readable(self, target: Tensor, data: TargetData) -> str | None:
        return data.classes[int(target)] if int(target) >= 0 else None


def told(kind: str, classes: Sequence[str], counts: Tensor) -> TargetData:
    """What heads of classes, and their metrics, ask for."""
    number = len(classes)
    facts = {"counts": counts.tolist(), "num_classes": number, "num_labels": number}
    return TargetData(kind=kind, classes=tuple(classes), facts=facts)


def known_classes(known: TargetData | None, rows: Sequence[Sequence[str]]) -> tuple[list[str], str]:
    """Those of the model, else of the training rows; and whose they are, for messages."""
    if known is not None:
        return list(known.classes), "the model knows"
    found = sort_classes({name for names in rows for name in names if not undecodable(name)})
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


def find(name: str, index: dict[str, int], of: str) -> int:
    """Errors: ValueError for a name that is none of them."""
    if undecodable(name):
        raise ValueError("the label is not valid UTF-8; save the file as UTF-8")
    if name not in index:
        raise ValueError(f"unknown label '{name}'; {of} {listing(list(index))}{near(name, index)}")
    return index[name]


def sort_classes(labels: set[str]) -> list[str]:
    """By number where all are finite ones, else by text."""
    found = sorted(labels)
    with suppress(ValueError):
        if all(isfinite(float(label)) for label in found):
            return sorted(found, key=float)
    return found
