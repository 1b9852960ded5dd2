"""Cells of a target column -> tensors."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from datamodules.table import Fault
from mm.types import IGNORE, TargetData


def encode(
    kind: str, column: str, cells: Sequence[Any], train: np.ndarray, classes: Sequence[str] | None, separator: str = "|"
) -> tuple[Tensor, TargetData, list[Fault]]:
    """Cells of any type -> targets, what is known of them, and the cells that could not be read (left unlabelled).

    kind: as in TargetData; train: (N,) bool, rows that say which classes there are, where `classes` does not.
    Errors: ValueError where no training row is labelled, or the kind is unknown.
    """
    texts = [text_of(cell) for cell in cells]
    if classes is None and not any(texts[i] for i in np.flatnonzero(train)):
        raise ValueError(f"column '{column}': no training row is labelled")
    if kind == "number":
        return numbers(column, texts, train)
    if kind not in ("class", "labels"):
        raise ValueError(f"column '{column}': got kind '{kind}', wanted class, labels or number")
    parts = [split_labels(t, separator if kind == "labels" else None) for t in texts]
    if classes is None:
        classes = sort_classes({label for i in np.flatnonzero(train) for label in parts[i]})
    index = {label: i for i, label in enumerate(classes)}
    faults = [
        Fault(row, column, f"unknown label '{label}', wanted one of {shown(classes)}")
        for row, labels in enumerate(parts)
        for label in labels
        if label not in index
    ]
    if kind == "class":
        targets = torch.tensor([index.get(p[0], IGNORE) if p else IGNORE for p in parts])
        known = targets[torch.from_numpy(train) & (targets != IGNORE)]
        counts = torch.bincount(known, minlength=len(classes))
    else:
        targets = torch.zeros(len(parts), len(classes), dtype=torch.long)
        for row, labels in enumerate(parts):
            if not labels or any(label not in index for label in labels):
                targets[row] = IGNORE
            else:
                targets[row, [index[label] for label in labels]] = 1
        counts = (targets[torch.from_numpy(train)] == 1).sum(0)
    return targets, TargetData(kind=kind, classes=tuple(classes), counts=tuple(counts.tolist())), faults


def numbers(column: str, texts: Sequence[str], train: np.ndarray) -> tuple[Tensor, TargetData, list[Fault]]:
    """Cells that hold a number each."""
    values, faults = torch.full((len(texts),), math.nan), []
    for row, text in enumerate(texts):
        try:
            values[row] = float(text) if text else math.nan
        except ValueError:
            faults.append(Fault(row, column, f"got '{text}', wanted a number"))
            continue
        if text and not math.isfinite(values[row]):
            faults.append(Fault(row, column, f"got '{text}', wanted a finite number"))
            values[row] = math.nan
    known = values[torch.from_numpy(train) & values.isfinite()].double()
    if not len(known):
        return values, TargetData(kind="number"), faults
    std = float(known.std(correction=0))
    return values, TargetData(kind="number", mean=float(known.mean()), std=std if std > 0 else 1.0), faults


def text_of(cell: Any) -> str:
    """A cell as text; "" where it is empty. Whole floats lose their `.0`, as integers with gaps come as floats."""
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return ""
    if isinstance(cell, list | tuple):
        return "|".join(map(str, cell))
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    return str(cell).strip()


def split_labels(text: str, separator: str | None) -> list[str]:
    """One label, or several between separators."""
    if separator is None:
        return [text] if text else []
    return [label.strip() for label in text.split(separator) if label.strip()]


def sort_classes(labels: set[str]) -> list[str]:
    """By number where all are numbers, else by text."""
    try:
        return sorted(labels, key=lambda label: (float(label), label))
    except ValueError:
        return sorted(labels)


def shown(names: Sequence[str], most: int = 12) -> str:
    """Names in a message, not too many."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
