"""How much of a training epoch each of several files, or classes, makes up, and which of its rows that takes."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mm.messages import listing, near
from mm.types import TargetData

MIXINGS = ("proportional", "uniform", "temperature")
BALANCED = ("class", "labels", "tags", "boxes")  # kinds of targets whose rows have classes
Arrange = Callable[[np.ndarray, int], np.ndarray]  # places, seed -> the same, in a new order


@dataclass(frozen=True)
class Mixing:
    """How several files are mixed: the share of file s in an epoch is proportional to weight[s] * base[s].

    Attributes:
        kind: The base: the rows of the file (`proportional`), 1 (`uniform`), or the rows to the power of 1 /
            `temperature` (`temperature`).
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
        """Rows of each file in an epoch; they add up to all rows."""
        power = {"proportional": 1.0, "uniform": 0.0, "temperature": 1 / self.temperature}[self.kind]
        part = np.array(weights) * np.array(sizes, dtype=float) ** power * (np.array(sizes) > 0)
        ends = np.rint(np.cumsum(part / part.sum()) * sum(sizes)).astype(int)
        return np.diff(ends, prepend=0).tolist()


@dataclass(frozen=True)
class Balance:
    """Of n rows of a class, n ** (1 - power) parts of an epoch are.

    target: whose classes, None: rows come as they are; a row of several counts as of the rarest of them; power: 1:
    each class as often as any other, 0.5: by the inverse square root of its frequency, 0: as they are.
    """

    target: str | None = None
    power: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.power <= 1:
            raise ValueError(f"datamodule.balance_exponent: got {self.power}, wanted from 0 (as they are) to 1 (equal)")

    def check(self, targets: Mapping[str, TargetData]) -> None:
        """Errors: ValueError where rows can't be drawn by the classes of the target, as it has none."""
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
        """The rows of a class that one file has are a stratum. -> (N,) which of them each row is of, rows of each

        label: (N,) class of each row, below 0: unlabelled, which come as they would have; source, counts: as in
        Mixture, by which the files of one class, and the unlabelled rows, keep their parts.
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
    """Of each row's classes that which the fewest rows have, as LVIS's repeat factor is the largest of a picture's.

    (Gupta 2019.) written: labels, tags or boxes of each row, None: unlabelled; of tags, what they are of, B-PER and
    I-PER alike. -> (N,) a number for each class, one more for rows without any; below 0: unlabelled
    """
    found = [None if row is None else kinds(row, kind) for row in written]
    counts = Counter(name for row in found for name in row or ())
    rank = {name: i for i, (name, _) in enumerate(counts.most_common())}
    return np.array(
        [-1 if row is None else max((rank[name] for name in row), default=len(rank)) for row in found], dtype=np.int64
    )


def kinds(row: Sequence[Any], kind: str) -> set[str]:
    """The classes of one row."""
    if kind == "boxes":
        return {one["label"] for one in row}
    return {tag.partition("-")[2] or tag for tag in row} - {"O"} if kind == "tags" else set(row)


@dataclass
class Mixture:
    """Files of training rows, or strata of them, drawn at different rates.

    A stratum's rows are an endless sequence, all of them in one order, then all in another: an epoch takes as many as
    it has to from where the epoch before it stopped.
    """

    source: np.ndarray  # (N,) the file of each row
    counts: Sequence[int]  # rows of each stratum in an epoch
    one_source: bool
    stratum: np.ndarray | None = None  # (N,) of each row; None: its file

    def draw(self, epoch: int, arrange: Arrange) -> tuple[np.ndarray, np.ndarray]:
        """-> (N,) places of rows that make up an epoch, and of each how often it is in the epoch before that."""
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
