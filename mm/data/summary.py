"""Description of the splits of a table: rows, classes and groups."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from mm.data.table import SPLITS, Table
from mm.messages import listing

CLASSES = 12  # maximum number of classes that are listed with their counts


def describe_splits(table: Table) -> list[str]:
    """Return a line for each split that has rows: its number of rows, the rows of each class, and the number of groups.

    Args:
        table: The table, with targets.

    Returns:
        Lines such as `train: 80 rows in 12 groups; target: cat 50, dog 30`.
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
    """Return the number of rows of each class of a target as text; "" if the target has no classes.

    Args:
        name: Name of the target.
        table: The table.
        rows: Indices of the rows to count, (N,).
    """
    about, values = table.spec.targets[name], table.targets[name]
    if about.kind != "class":
        return ""
    label = torch.as_tensor(values)[torch.as_tensor(rows)]
    counts = torch.bincount(label[label >= 0], minlength=len(about.classes)).tolist()
    unlabelled = len(rows) - sum(counts)
    more = f", {unlabelled:,} unlabelled" if unlabelled else ""
    return f"{name}: {class_counts(about.classes, counts)}{more}"


def class_counts(classes: Sequence[str], counts: Sequence[int]) -> Any:
    """Return classes with their row counts as text."""
    if len(classes) <= CLASSES:
        return ", ".join(f"{listing([name])} {count:,}" for name, count in zip(classes, counts, strict=True))
    present = sum(count > 0 for count in counts)
    return f"{present:,} of {len(classes):,} classes, from {min(counts):,} to {max(counts):,} rows each"
