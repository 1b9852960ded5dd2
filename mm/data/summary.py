"""What landed in which split, in words: rows, classes and groups."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from mm.data.table import SPLITS, Table
from mm.messages import listing

CLASSES = 12  # of a target are named with their rows; of more, only their number and the smallest


def describe_splits(table: Table) -> list[str]:
    """Return a line per split: its rows, the rows of each class, and its groups.

    Args:
        table: All rows, with targets.

    Returns:
        Such as `train: 80 rows in 12 groups; target: cat 50, dog 30`; of a split without rows nothing.
    """
    lines = []
    for split in SPLITS:
        rows = np.flatnonzero(table.split == split)
        if not len(rows):
            continue
        said = f"{split}: {len(rows):,} rows"
        if table.groups is not None:
            said += f" in {len(set(table.groups[rows].tolist())):,} groups"
        parts = [describe_classes(name, table, rows) for name in table.targets]
        lines.append("; ".join([said, *filter(None, parts)]))
    return lines


def describe_classes(name: str, table: Table, rows: np.ndarray) -> str:
    """Return how many of some rows each class of a target has; nothing of targets that are no classes."""
    about, values = table.spec.targets[name], table.targets[name]
    if about.kind != "class":
        return ""
    label = torch.as_tensor(values)[torch.as_tensor(rows)]
    counts = torch.bincount(label[label >= 0], minlength=len(about.classes)).tolist()
    unlabelled = len(rows) - sum(counts)
    more = f", {unlabelled:,} unlabelled" if unlabelled else ""
    return f"{name}: {class_counts(about.classes, counts)}{more}"


def class_counts(classes: Sequence[str], counts: Sequence[int]) -> Any:
    """Return classes and their rows in words."""
    if len(classes) <= CLASSES:
        return ", ".join(f"{listing([name])} {count:,}" for name, count in zip(classes, counts, strict=True))
    present = sum(count > 0 for count in counts)
    return f"{present:,} of {len(classes):,} classes, from {min(counts):,} to {max(counts):,} rows each"
