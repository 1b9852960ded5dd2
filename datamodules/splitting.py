"""Deterministic splits, where the data has none."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.model_selection import GroupShuffleSplit, StratifiedShuffleSplit, train_test_split

from datamodules.table import SPLITS


@dataclass(frozen=True)
class Split:
    """Parts of the rows that go to validation and test; the rest trains."""

    val: float = 0.1
    test: float = 0.1
    seed: int = 0


def make_split(count: int, split: Split, labels: np.ndarray | None = None, groups: np.ndarray | None = None) -> np.ndarray:
    """Stratified by `labels`, or with whole `groups` on one side. -> (N,) of str

    Errors: ValueError where a part is not in 0..1 or nothing would be left to train on.
    """
    if not (0 <= split.val < 1 and 0 <= split.test < 1 and split.val + split.test < 1):
        raise ValueError(f"datamodule.split: got val={split.val}, test={split.test}, wanted parts that add up to less than 1")
    names = np.full(count, "train", dtype=object)
    rest = np.arange(count)
    for name, part in (("test", split.test), ("val", split.val / (1 - split.test))):
        if part:
            rest, taken = cut(rest, part, split.seed, labels, groups)
            names[taken] = name
    return names


def cut(
    rows: np.ndarray, part: float, seed: int, labels: np.ndarray | None, groups: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Rows -> (those that stay, those that are taken)."""
    if groups is not None:
        if len(set(groups[rows])) < 2:
            raise ValueError(
                f"datamodule.columns.group: the {len(rows)} rows to split are all of one group; give a split column instead"
            )
        stay, take = next(GroupShuffleSplit(1, test_size=part, random_state=seed).split(rows, groups=groups[rows]))
    elif labels is not None and can_stratify(labels[rows], part):
        stay, take = next(StratifiedShuffleSplit(1, test_size=part, random_state=seed).split(rows, labels[rows]))
    else:
        if round(len(rows) * part) < 1:
            raise ValueError(
                f"datamodule.split: {part:g} of {len(rows)} rows is an empty split; give more rows, a larger part or 0"
            )
        stay, take = train_test_split(np.arange(len(rows)), test_size=part, random_state=seed)
    return rows[np.sort(stay)], rows[np.sort(take)]


def can_stratify(labels: np.ndarray, part: float) -> bool:
    """Every class needs two rows, and each side a row of every class at least."""
    _, counts = np.unique(labels, return_counts=True)
    taken = int(np.ceil(len(labels) * part))
    return bool(counts.min() >= 2 and len(counts) <= min(taken, len(labels) - taken))


def check_split(names: Sequence[str], source: str) -> np.ndarray:
    """A split column's cells, with usual spellings of validation. Errors: ValueError where one is unknown."""
    spelt = {"valid": "val", "validation": "val", "dev": "val", "training": "train", "testing": "test"}
    cells = [spelt.get(name.strip().lower(), name.strip().lower()) for name in names]
    for row, name in enumerate(cells):
        if name not in (*SPLITS, ""):
            raise ValueError(f"{source}: row {row}: split '{names[row]}', wanted train, val, test or nothing")
    return np.array(cells, dtype=object)
