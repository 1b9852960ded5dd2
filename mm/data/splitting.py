"""Deterministic random splits for data without a split column."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mm.cells import distinct
from mm.data.table import SPLITS, Fault, Table

SPELT = {"valid": "val", "validation": "val", "dev": "val", "training": "train", "testing": "test"}

FILLED = {"train": "lower datamodule.split.val or .test", "all": "there is no row to read"}  # an empty split's fix


@dataclass(frozen=True)
class Split:
    """Fractions of the rows for validation and test. The other rows, or `rows` of them, are training rows."""

    val: float = 0.1
    test: float = 0.1
    seed: int = 0
    rows: int | None = None


def keep_some(table: Table, split: Split) -> None:
    """Keep a random subset of the training rows, in place; the other training rows then belong to no split.

    This is done once per table. Rows that are dropped later are not replaced.

    Args:
        table: The table.
        split: The split, with the number of training rows to keep and the seed.

    Raises:
        ValueError: If there are fewer training rows.
    """
    names = table.split
    train = np.flatnonzero(names == "train")
    done, table.kept = table.kept, True
    if done or split.rows is None or len(train) == split.rows:
        return
    if not 0 < split.rows < len(train):
        raise ValueError(f"datamodule.split.rows: got {split.rows}, wanted from 1 to the {len(train)} training rows")
    names[np.random.default_rng(split.seed).permutation(train)[split.rows :]] = ""


def make_split(
    count: int, split: Split, labels: np.ndarray | None = None, groups: np.ndarray | None = None
) -> np.ndarray:
    """Draw a split that is stratified by labels, or that never divides a group.

    Each label keeps a training row, so a class with a single row is in the training split.

    Args:
        count: Number N of rows.
        split: Fractions and seed.
        labels: Labels of each row, (N,) of str or of lists of str; None: the split is not stratified.
        groups: Group of each row, (N,); None: rows have no groups.

    Returns:
        Split name of each row, (N,) of str.

    Raises:
        ValueError: If a fraction is not in 0..1, or if a split would be empty.
    """
    if not (0 <= split.val < 1 and 0 <= split.test < 1 and split.val + split.test < 1):
        raise ValueError(
            f"datamodule.split: got val={split.val}, test={split.test}, wanted parts that add up to less than 1"
        )
    labels = None if labels is None else ranked(labels)
    names = np.full(count, "train", dtype=object)
    rest = np.arange(count)
    for name, part in (("test", split.test), ("val", split.val / (1 - split.test))):
        if part:
            rest, taken = cut(rest, part, split.seed, labels, groups)
            names[taken] = name
    return names


def ranked(labels: np.ndarray) -> np.ndarray:
    """Replace labels by their ranks, because numbers are sorted faster; lists stay unchanged.

    Ranks have the order of the labels, so that splits do not depend on the set of labels.
    """
    cells = labels.tolist()
    if any(isinstance(cell, list) for cell in cells):
        return labels
    rank = {name: i for i, name in enumerate(sorted(set(cells)))}
    return np.fromiter((rank[cell] for cell in cells), np.int64, len(cells))


def cut(
    rows: np.ndarray, part: float, seed: int, labels: np.ndarray | None, groups: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Divide rows at random.

    Args:
        rows: Indices of the rows.
        part: Fraction to take.
        seed: Random seed.
        labels: Labels of all rows, to stratify by, or None.
        groups: Groups of all rows, which are not divided, or None.

    Returns:
        The rows that stay, and the rows that are taken.
    """
    from sklearn.model_selection import GroupShuffleSplit, StratifiedShuffleSplit, train_test_split  # slow to import

    if groups is not None:
        if len(set(groups[rows])) < 2:
            raise ValueError(
                f"datamodule.columns.group: the {len(rows)} rows to split are all of one group; give a split "
                "column, or set datamodule.columns.group=false to split without groups"
            )
        stay, take = next(GroupShuffleSplit(1, test_size=part, random_state=seed).split(rows, groups=groups[rows]))
    elif labels is not None and can_stratify(labels[rows], part):
        stay, take = next(StratifiedShuffleSplit(1, test_size=part, random_state=seed).split(rows, labels[rows]))
    else:
        if round(len(rows) * part) < 1:
            raise ValueError(
                f"datamodule.split: {part:g} of {len(rows)} rows is an empty split; give more rows, a larger part or 0"
            )
        if labels is not None:
            return cut_rare(rows, part, seed, labels)
        stay, take = train_test_split(np.arange(len(rows)), test_size=part, random_state=seed)
    return rows[np.sort(stay)], rows[np.sort(take)]


def cut_rare(rows: np.ndarray, part: float, seed: int, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Divide rows like `cut`, if labels are too rare to stratify by or rows have several labels.

    One row of each label stays. Of the other rows, those of rare labels join the largest stratum.
    """
    from sklearn.model_selection import train_test_split  # slow to import

    if labels.dtype != object:
        return cut_rare_classes(rows, part, seed, labels)
    sets = [frozenset(label) if isinstance(label, list) else frozenset([label]) for label in labels[rows]]
    stays = np.zeros(len(rows), dtype=bool)
    seen: set[str] = set()
    for i in np.random.default_rng(seed).permutation(len(rows)):
        stays[i] = not sets[i] <= seen
        seen |= sets[i]
    free = np.flatnonzero(~stays)
    wanted = min(round(len(rows) * part), len(free))  # may be 0: reading the split then raises
    mask = ~stays & (wanted > 0)
    if 0 < wanted < len(free):
        strata = ["|".join(sorted(sets[i])) for i in free]
        common = Counter(strata)
        largest = max(common, key=lambda name: common[name])
        strata = np.array([name if common[name] * part >= 1 else largest for name in strata])
        stratify = strata if can_stratify(strata, wanted / len(free)) else None
        _, take = train_test_split(free, test_size=wanted, random_state=seed, stratify=stratify)
        mask = np.isin(np.arange(len(rows)), take)
    return rows[~mask], rows[mask]


def cut_rare_classes(rows: np.ndarray, part: float, seed: int, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Divide rows like `cut_rare`, for one integer label per row, (N,)."""
    from sklearn.model_selection import train_test_split  # slow to import

    own = labels[rows]
    order = np.random.default_rng(seed).permutation(len(rows))
    stays = np.zeros(len(rows), dtype=bool)
    stays[order[np.unique(own[order], return_index=True)[1]]] = True  # the first row of each label in this order
    free = np.flatnonzero(~stays)
    wanted = min(round(len(rows) * part), len(free))
    mask = ~stays & (wanted > 0)
    if 0 < wanted < len(free):
        strata = own[free]
        names, first, counts = np.unique(strata, return_index=True, return_counts=True)
        largest = min(zip(-counts, first, names))[2]  # of equal ones, the first
        rare = names[counts * part < 1]
        strata = np.where(np.isin(strata, rare), largest, strata)
        stratify = strata if can_stratify(strata, wanted / len(free)) else None
        _, take = train_test_split(free, test_size=wanted, random_state=seed, stratify=stratify)
        mask = np.isin(np.arange(len(rows)), take)
    return rows[~mask], rows[mask]


def can_stratify(labels: np.ndarray, part: float) -> bool:
    """Return whether a split can be stratified: each class has two rows, and each side a row of each class.

    Rows with several labels can't be stratified.
    """
    if labels.dtype == object and any(isinstance(label, list) for label in labels):
        return False
    _, counts = np.unique(labels, return_counts=True)
    taken = int(np.ceil(len(labels) * part))
    return bool(counts.min() >= 2 and len(counts) <= min(taken, len(labels) - taken))


def spelt(name: str) -> str:
    """Return the canonical name of a split, in lower case: "val" for spellings such as "valid" or "dev".

    Args:
        name: Name of the split in the data.

    Returns:
        "train", "val" or "test" for a known spelling, otherwise the name in lower case.
    """
    return SPELT.get(name.strip().lower(), name.strip().lower())


def check_split(cells: Sequence[Any], column: str) -> tuple[np.ndarray, list[Fault]]:
    """Convert the cells of a split column.

    Args:
        cells: The cells.
        column: Name of the column, for error messages.

    Returns:
        The split of each row, (N,) of str, and an error for each cell that is not the name of a split; such rows belong
        to no split.
    """
    names, place = distinct(cells)
    splits = np.array([spelt(name) for name in names], dtype=object)
    known = np.isin(splits, (*SPLITS, ""))
    faults = [
        Fault(row, column, f"split '{names[place[row]]}', wanted {', '.join(SPLITS)} or nothing")
        for row in np.flatnonzero(~known[place]).tolist()
    ]
    splits[~known] = ""
    return splits[place], faults


def rows_of_split(table: Table, split: str, named: bool) -> np.ndarray:
    """Return the indices of the rows of a split, or with "all" of every split.

    Args:
        table: The table.
        split: "train", "val", "test" or "all".
        named: Whether a column can name the split of each row, for the message.

    Raises:
        ValueError: If there is no such split, or if it is empty.
    """
    if split not in (*SPLITS, "all"):
        raise ValueError(f"split: got '{split}', wanted one of {', '.join(SPLITS)}, all")
    rows = np.flatnonzero(table.split != "" if split == "all" else table.split == split)
    if not len(rows):
        counts = ", ".join(f"{name} {int((table.split == name).sum())}" for name in SPLITS)
        raise ValueError(
            f"{table.source}: the split '{split}' is empty (rows: {counts}); {one_row_each(table)}"
            f"{FILLED.get(split, f'set datamodule.split.{split} above 0')}"
            f"{', or name the column of splits with datamodule.columns.split' if named else ''}"
        )
    return rows


def one_row_each(table: Table) -> str:
    """Return the reason why a random split is empty if every class has only one row; otherwise "".

    A single row of a class is always a training row.
    """
    for name, data in table.spec.targets.items():
        counts = data.facts.get("counts", ())
        if data.kind == "class" and len(counts) > 1 and max(counts) == 1:
            return (
                f"each of the {len(counts)} classes of '{table.columns.get(name, name)}' has a single row, which "
                "trains: is it a number (model/heads=regression), or an identifier? Else "
            )
    return ""
