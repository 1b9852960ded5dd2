"""Mixing of files and balancing of classes: how often the rows of each are drawn in a training epoch."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mm.data.table import Table
from mm.messages import listing, near
from mm.types import TargetData

MIXINGS = ("proportional", "uniform", "temperature")
BALANCED = ("class", "labels", "tags", "boxes")  # kinds of targets whose rows have classes
Arrange = Callable[[np.ndarray, int], np.ndarray]  # rows, seed to the rows in another order


@dataclass(frozen=True)
class Mixing:
    """How several files are mixed: the fraction of file s in an epoch is proportional to weight[s] * base[s].

    Attributes:
        kind: The base: the number of rows of the file (`proportional`), 1 (`uniform`), or the number of rows to the
            power of 1 / `temperature` (`temperature`).
        temperature: See `kind`.
        homogeneous_batches: Whether every batch has rows of one file only.
    """

    kind: str = "proportional"
    temperature: float = 2.0
    homogeneous_batches: bool = False

    def __post_init__(self) -> None:
        if self.kind not in MIXINGS:
            raise ValueError(f"datamodule.mixing: got '{self.kind}', wanted one of {', '.join(MIXINGS)}")
        if not self.temperature > 0:
            raise ValueError(f"datamodule.temperature: got {self.temperature}, wanted a number above 0")

    def counts(self, sizes: Sequence[int], weights: Sequence[float]) -> list[int]:
        """Return the number of rows of each file in an epoch; they add up to the number of all rows."""
        power = {"proportional": 1.0, "uniform": 0.0, "temperature": 1 / self.temperature}[self.kind]
        part = np.array(weights) * np.array(sizes, dtype=float) ** power * (np.array(sizes) > 0)
        ends = np.rint(np.cumsum(part / part.sum()) * sum(sizes)).astype(int)
        return np.diff(ends, prepend=0).tolist()


@dataclass(frozen=True)
class Balance:
    """Balancing of classes: the frequency of a class with n rows in an epoch is proportional to n ** (1 - power).

    Args:
        target: Target whose classes are balanced; None: no balancing. A row of several classes counts as its rarest
            class.
        power: 1: all classes are equally frequent; 0.5: classes are weighted by the inverse square root of their
            counts; 0: no balancing.
    """

    target: str | None = None
    power: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.power <= 1:
            raise ValueError(f"datamodule.balance_exponent: got {self.power}, wanted from 0 (as they are) to 1 (equal)")

    def check(self, targets: Mapping[str, TargetData]) -> None:
        """Raise ValueError if the target does not exist or its rows have no classes."""
        name = self.target
        if name is None:
            return
        if name not in targets:
            raise ValueError(
                f"datamodule.balance_by: got '{name}', the data has {listing(list(targets)) or 'no target'}"
                f"{near(name, targets)}"
            )
        if targets[name].kind not in BALANCED:
            raise ValueError(
                f"datamodule.balance_by: rows of '{name}' have no classes: it is a target of kind "
                f"{targets[name].kind}, wanted one of {', '.join(BALANCED)}"
            )

    def strata(self, label: np.ndarray, source: np.ndarray, counts: Sequence[int]) -> tuple[np.ndarray, list[int]]:
        """Compute how many rows of each stratum are drawn per epoch. The rows of a class in one file are a stratum.

        The fractions of the files within a class, and of unlabelled rows, stay unchanged.

        Args:
            label: Class of each row, (N,); below 0: unlabelled.
            source: File of each row, as in Mixture.
            counts: Rows of each file in an epoch, as in Mixture.

        Returns:
            The stratum of each row, (N,), and the number of rows of each stratum in an epoch.
        """
        pairs, stratum, sizes = np.unique(np.stack([label, source]), axis=1, return_inverse=True, return_counts=True)
        rate = np.array(counts) / np.maximum(1, np.bincount(source, minlength=len(counts)))
        part = rate[pairs[1]] * sizes
        classes, of = np.unique(pairs[0], return_inverse=True)
        before = np.bincount(of, part)
        labelled = classes >= 0
        after = np.where(labelled, before ** (1 - self.power) * (before > 0), before)
        after[labelled] *= before[labelled].sum() / max(after[labelled].sum(), 1e-300)
        wanted = part * (after / np.maximum(before, 1e-300))[of]
        found = np.floor(wanted + 1e-6).astype(int)
        missing = sum(counts) - int(found.sum())
        found[np.argsort(found - wanted, kind="stable")[:missing]] += 1  # the largest remainders
        return stratum.reshape(-1), found.tolist()


def rarest(written: Sequence[Any], kind: str) -> np.ndarray:
    """Return the rarest class of each row, as in the repeat factor of LVIS (Gupta 2019).

    Args:
        written: Labels, tags or boxes of each row; None: unlabelled. Of tags, the entity type counts: B-PER and I-PER
            are one class.
        kind: Kind of the target: "labels", "tags" or "boxes".

    Returns:
        Class index of each row, (N,), with one more class for rows without any; below 0: unlabelled.
    """
    found = [None if row is None else kinds(row, kind) for row in written]
    counts = Counter(name for row in found for name in row or ())
    rank = {name: i for i, (name, _) in enumerate(counts.most_common())}
    return np.array(
        [-1 if row is None else max((rank[name] for name in row), default=len(rank)) for row in found], dtype=np.int64
    )


def kinds(row: Sequence[Any], kind: str) -> set[str]:
    """Return the classes of one row."""
    if kind == "boxes":
        return {one["label"] for one in row}
    return {tag.partition("-")[2] or tag for tag in row} - {"O"} if kind == "tags" else set(row)


@dataclass
class Mixture:
    """Files of training rows, or strata of them, that are drawn at different rates.

    The rows of a stratum form an endless sequence: all of them in one order, then all in another order. Each epoch
    takes as many as it needs, starting where the previous epoch stopped.
    """

    source: np.ndarray  # (N,) index of the file of each row
    counts: Sequence[int]  # rows of each stratum in an epoch
    one_source: bool
    stratum: np.ndarray | None = None  # (N,) of each row; None: its file

    def draw(self, epoch: int, arrange: Arrange) -> tuple[np.ndarray, np.ndarray]:
        """Return the rows of an epoch as indices (N,), and for each how often the epoch had the row before, (N,)."""
        places, before = [], []
        of = self.source if self.stratum is None else self.stratum
        for s, count in enumerate(self.counts):
            mine = np.flatnonzero(of == s)
            begin, end = epoch * count, (epoch + 1) * count
            first = begin // max(1, len(mine))
            for turn in range(first, -(-end // max(1, len(mine)))):
                start = turn * len(mine)
                taken = arrange(mine, hash((s, turn)))[max(0, begin - start) : end - start]
                places.append(taken)
                before.append(np.full(len(taken), turn - first))
        return np.concatenate(places), np.concatenate(before)


def mix_rows(
    table: Table, rows: np.ndarray, mixing: Mixing, balance: Balance, truth: Callable[[str, int], Any]
) -> Mixture | None:
    """Return the mixture of files and classes from which training rows are drawn; None if all rows are drawn once.

    Args:
        table: The table.
        rows: Indices of the training rows.
        mixing: How files are mixed.
        balance: How classes are balanced.
        truth: Function of the name of a target and a row, which returns the decoded target.

    Raises:
        ValueError: If the rows of a file, or of a class in a file, would never be drawn.
    """
    files = mix_files(table, rows, mixing)
    if balance.target is None:
        return files
    if files is None:
        files = Mixture(np.zeros(len(rows), dtype=np.int64), [len(rows)], False)
    name = balance.target
    kind = table.spec.targets[name].kind
    label: np.ndarray = (
        table.targets[name][rows].numpy()
        if kind == "class"
        else rarest([truth(name, row) for row in rows.tolist()], kind)
    )
    stratum, counts = balance.strata(label, files.source, files.counts)
    for row, count in zip(rows[np.unique(stratum, return_index=True)[1]].tolist(), counts, strict=True):
        if not count:
            raise ValueError(
                f"datamodule.balance_by: {table.origin(row).source} has so few rows of '{truth(name, row)}' that none "
                "of them is in an epoch; raise its weight"
            )
    return replace(files, counts=counts, stratum=stratum)


def mix_files(table: Table, rows: np.ndarray, mixing: Mixing) -> Mixture | None:
    """Return the mixture of several files; None if there is only one.

    Args:
        table: The table.
        rows: Indices of the training rows.
        mixing: How files are mixed.

    Raises:
        ValueError: If the rows of a file would never be drawn.
    """
    origins = table.origins
    if not origins:
        return None
    source = np.searchsorted([origin.first for origin in origins], rows, side="right") - 1
    sizes = np.bincount(source, minlength=len(origins)).tolist()
    counts = mixing.counts(sizes, [origin.weight for origin in origins])
    for origin, size, count in zip(origins, sizes, counts):
        if size and not count:
            raise ValueError(
                f"datamodule.path: {origin.source} would make up none of the {len(rows)} rows of an epoch; raise "
                "its weight"
            )
    return Mixture(source, counts, mixing.homogeneous_batches)
