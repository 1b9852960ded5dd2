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
    if kind not in ("class", "labels", "number"):
        raise ValueError(f"column '{column}': got kind '{kind}', wanted class, labels or number")
    if classes is None and not any(text_of(cells[i]) for i in np.flatnonzero(train).tolist()):
        rows = "no training row is labelled" if train.any() else "there are no training rows to learn it from"
        raise ValueError(f"column '{column}': {rows}; look at datamodule.columns.target and .split")
    if kind == "number":
        return numbers(column, [text_of(cell) for cell in cells], train)
    parts = [labels_of(cell, separator if kind == "labels" else None) for cell in cells]
    faults = [
        Fault(row, column, "the label is not valid UTF-8; save the file as UTF-8")
        for row, labels in enumerate(parts)
        if any(undecodable(label) for label in labels or ())
    ]
    for fault in faults:
        parts[fault.row] = None
    of = "the model knows"
    if classes is None:
        of = "training rows have"
        classes = sort_classes({label for i in np.flatnonzero(train).tolist() for label in parts[i] or ()})
    index = {label: i for i, label in enumerate(classes)}
    for row, labels in enumerate(parts):
        for label in labels or ():
            if label not in index:
                faults.append(
                    Fault(row, column, f"unknown label '{label}'; {of} {shown(classes)}{nearest(label, classes)}")
                )
                parts[row] = None
    size = (len(parts),) if kind == "class" else (len(parts), len(classes))
    targets = torch.full(size, IGNORE)
    for row, labels in enumerate(parts):
        if kind == "labels" and labels is not None:
            targets[row] = 0
            targets[row, [index[label] for label in labels]] = 1
        elif labels:
            targets[row] = index[labels[0]]
    known = targets[torch.from_numpy(train)]
    counts = (known == 1).sum(0) if kind == "labels" else torch.bincount(known[known != IGNORE], minlength=len(classes))
    return targets, TargetData(kind=kind, classes=tuple(classes), counts=tuple(counts.tolist())), faults


def numbers(column: str, texts: Sequence[str], train: np.ndarray) -> tuple[Tensor, TargetData, list[Fault]]:
    """Cells that hold a number each."""
    values, faults = np.full(len(texts), np.nan, dtype=np.float32), []
    largest = float(np.finfo(np.float32).max)
    for row, text in enumerate(texts):
        try:
            value = float(text) if text else math.nan
        except ValueError:
            hint = "; write a decimal point" if text.replace(",", "", 1).lstrip("-").isdigit() else ""
            faults.append(Fault(row, column, f"got '{text}', wanted a number{hint}"))
            continue
        if text and not abs(value) <= largest:  # NaN is not, either
            faults.append(Fault(row, column, f"got '{text}', wanted a finite number"))
        else:
            values[row] = value
    known = values[train & np.isfinite(values)].astype(np.float64)
    if not len(known):
        return torch.from_numpy(values), TargetData(kind="number"), faults
    std = float(known.std())
    data = TargetData(kind="number", mean=float(known.mean()), std=std if std > 0 else 1.0)
    return torch.from_numpy(values), data, faults


def text_of(cell: Any) -> str:
    """A cell as text; "" where it is empty. Whole floats lose their `.0`, as integers with gaps come as floats."""
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return ""
    if isinstance(cell, list | tuple):
        return "|".join(map(text_of, cell))
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    return str(cell).strip()


def labels_of(cell: Any, separator: str | None) -> list[str] | None:
    """One label where `separator` is None, else any number of them; None where the cell is empty: unlabelled.

    A list without elements, or a lone separator, says that the row has none of the labels.
    """
    if separator is not None and isinstance(cell, list | tuple):
        return [text_of(label) for label in cell if text_of(label)]
    text = text_of(cell)
    if not text:
        return None
    return [text] if separator is None else [label.strip() for label in text.split(separator) if label.strip()]


def undecodable(text: str) -> bool:
    """Whether bytes that are no UTF-8 were read as lone surrogates."""
    return any("\ud800" <= letter <= "\udfff" for letter in text)


def sort_classes(labels: set[str]) -> list[str]:
    """By number where all are numbers, else by text."""
    try:
        return sorted(labels, key=lambda label: (float(label), label))
    except ValueError:
        return sorted(labels)


def nearest(name: str, names: Sequence[str]) -> str:
    """What was perhaps meant, for the end of a message."""
    from difflib import get_close_matches

    folded = {other.casefold(): other for other in names}
    close = get_close_matches(name.casefold(), folded, n=1)
    return f"; did you mean '{folded[close[0]]}'?" if close else ""


def shown(names: Sequence[str], most: int = 12, longest: int = 40) -> str:
    """Names in a message, not too many and not too long."""
    short = [name if len(name) <= longest else name[: longest - 3] + "..." for name in names[:most]]
    return ", ".join(short) + (f" and {len(names) - most} more" if len(names) > most else "")
