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
    if len(found) > MOST and measured(found):
        raise ValueError(
            f"got {len(found)} different numbers, such as {found[0]} and {found[-1]}, wanted classes; to tell a number "
            "choose model/heads=regression, or +model/heads@model.heads.NAME=regression of several"
        )
    return found, "training rows have"


def measured(labels: Sequence[str]) -> bool:
    """Whether all are numbers, and not whole ones, which may be names."""
    try:
        return not all(float(label).is_integer() for label in labels)
    except ValueError:
        return False


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
