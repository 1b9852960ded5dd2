"""How much of a training epoch each of several files makes up, and which of its rows that takes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

MIXES = ("size", "equal", "temperature")
Arrange = Callable[[np.ndarray, int], np.ndarray]  # places, seed -> the same, in a new order


@dataclass(frozen=True)
class Mixing:
    """The part of file s is proportional to weight[s] * base[s].

    mix: its base: the rows of it (size), 1 (equal), or its rows to the power of 1 / `temperature`; one_source: every
    batch is of one file.
    """

    mix: str = "size"
    temperature: float = 2.0
    one_source: bool = False

    def __post_init__(self) -> None:
        if self.mix not in MIXES:
            raise ValueError(f"datamodule.mix: got '{self.mix}', wanted one of {', '.join(MIXES)}")
        if not self.temperature > 0:
            raise ValueError(f"datamodule.temperature: got {self.temperature}, wanted a number above 0")

    def counts(self, sizes: Sequence[int], weights: Sequence[float]) -> list[int]:
        """Rows of each file in an epoch; they add up to all rows."""
        power = {"size": 1.0, "equal": 0.0, "temperature": 1 / self.temperature}[self.mix]
        part = np.array(weights) * np.array(sizes, dtype=float) ** power * (np.array(sizes) > 0)
        ends = np.rint(np.cumsum(part / part.sum()) * sum(sizes)).astype(int)
        return np.diff(ends, prepend=0).tolist()


@dataclass
class Mixture:
    """Files of training rows, drawn at different rates.

    A file's rows are an endless sequence, all of them in one order, then all in another: an epoch takes as many as it
    has to from where the epoch before it stopped.
    """

    source: np.ndarray  # (N,) the file of each row
    counts: Sequence[int]  # rows of each file in an epoch
    one_source: bool

    def draw(self, epoch: int, arrange: Arrange) -> tuple[np.ndarray, np.ndarray]:
        """-> (N,) places of rows that make up an epoch, and of each how often it is in the epoch before that."""
        places, before = [], []
        for s, count in enumerate(self.counts):
            mine = np.flatnonzero(self.source == s)
            begin, end = epoch * count, (epoch + 1) * count
            first = begin // max(1, len(mine))
            for turn in range(first, -(-end // max(1, len(mine)))):
                start = turn * len(mine)
                taken = arrange(mine, hash((s, turn)))[max(0, begin - start) : end - start]
                places.append(taken)
                before.append(np.full(len(taken), turn - first))
        return np.concatenate(places), np.concatenate(before)
