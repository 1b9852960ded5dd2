"""Batch sampling: shuffling, bucketing by length, division between processes, and exact resuming."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import Sampler

from mm.data.mixing import Mixture

Lengths = Mapping[str, np.ndarray]  # input name to length of every row, (N,), in tokens or seconds; 0: absent


class Draw(NamedTuple):
    """A row to be read, and the seed of all random numbers in reading it."""

    row: int  # index of the row; -1: an empty row that evens out batches
    seed: int


@dataclass(frozen=True)
class Batching:
    """How rows are grouped into batches.

    Args:
        batch_size: Maximum number of rows per process and step.
        budget: Input name to the maximum number of tokens (text) or seconds (audio) per process and step, including
            windows and padding.
        buckets: Number of buckets of rows of similar length, per input with a budget.
    """

    batch_size: int
    budget: Mapping[str, float] = field(default_factory=dict)
    buckets: int = 1

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ValueError(f"datamodule.batch_size: got {self.batch_size}, wanted at least 1")
        if self.buckets < 1:
            raise ValueError(f"datamodule.num_buckets: got {self.buckets}, wanted at least 1")
        for name, most in self.budget.items():
            if not isinstance(most, int | float) or not most > 0:
                raise ValueError(f"datamodule.max_batch_length.{name}: got {most}, wanted tokens or seconds above 0")

    def assign(self, rows: np.ndarray, lengths: Lengths, world: int) -> tuple[np.ndarray, list[int]]:
        """Assign rows to buckets.

        The number of buckets is limited such that each has enough tokens or rows for more than four global batches,
        because batches that are not full are inefficient.

        Args:
            rows: Indices of the rows, (N,).
            lengths: Lengths of all rows, for each input with a budget.
            world: Number of processes.

        Returns:
            The bucket of each row, (N,), and the number of rows per process and step of each bucket.
        """
        bucket = np.zeros(len(rows), dtype=np.int64)
        for name, most in self.budget.items():
            parts = np.zeros_like(bucket)
            for b in range(bucket.max(initial=0) + 1):
                mine = np.flatnonzero(bucket == b)
                batches = max(len(mine) / self.batch_size, lengths[name][rows[mine]].sum() / most)
                count = max(1, min(self.buckets, int(batches // (4 * world))))
                order = np.argsort(lengths[name][rows[mine]], kind="stable")
                # As much in each: as many rows would put the few longest among others, and all go one by one.
                sums = lengths[name][rows[mine[order]]].cumsum()
                parts[mine[order]] = np.minimum(count - 1, (count * sums / sums[-1:].clip(1e-9)).astype(int))
            _, bucket = np.unique(bucket * self.buckets + parts, return_inverse=True)
        sizes = []
        for b in range(bucket.max(initial=0) + 1):
            longest = {name: lengths[name][rows[bucket == b]].max(initial=0) for name in self.budget}
            fits = [most // longest[name] for name, most in self.budget.items() if longest[name] > 0]
            sizes.append(max(1, int(min([self.batch_size, *fits]))))
        return bucket, sizes


@dataclass
class Part:
    """A part of an epoch that was trained with the same batching and number of processes."""

    world: int
    batching: Batching
    batches: int  # global steps taken


@dataclass
class Shards:
    """The shards of rows, so that rows which are read at the same time lie in few shards."""

    of: np.ndarray  # (N,) shard of each row
    window: int  # number of shards from which rows are drawn at a time

    @property
    def matter(self) -> bool:
        """Return whether there are more shards than may be open at a time."""
        return len(np.unique(self.of)) > self.window


class Order(Sampler[list[Draw]]):
    """Batch sampler of one process: its batches of an epoch, with empty rows so that all processes have equally many.

    A global batch contains the rows of all processes in one step. Process p of n takes every n-th of its rows, starting
    at p, so that n processes train step by step like one process with n times the batch size. An epoch is determined by
    the seed, the epoch and the parts that are already trained, so a started epoch can continue in any number of
    processes.

    Args:
        rows: Indices of the rows of the split.
        batching: How rows are grouped into batches.
        shuffle: Whether to shuffle the rows in each epoch.
        seed: Random seed.
        rank: Rank of this process.
        world: Number of processes.
        lengths: Function that returns the lengths of every row for the inputs with a budget.
        shards: The shards of the rows; None: all rows can be accessed equally fast.
        mixture: How often rows of several files or classes are drawn; None: every row once.
    """

    def __init__(
        self,
        rows: np.ndarray,
        batching: Batching,
        shuffle: bool,
        seed: int,
        rank: int,
        world: int,
        lengths: Callable[[Iterable[str]], Lengths] = lambda names: {},
        shards: Shards | None = None,
        mixture: Mixture | None = None,
    ):
        self.rows = rows
        self.batching = batching
        self.shuffle = shuffle
        self.seed = seed
        self.rank = rank
        self.world = world
        self.lengths = lengths
        self.shards = shards if shards is not None and shards.matter else None
        self.mixture = mixture
        self.epoch = 0
        self.begun: tuple[int, list[Part]] | None = None  # the epoch to go on with, and what was trained of it
        self.parts: list[Part] = []  # of the current epoch, this one last
        self.counted: tuple[Any, int] | None = None  # what the length was last planned for, and the length
        self.drawn: tuple[np.ndarray, np.ndarray] = rows[:0], rows[:0]  # of the current epoch, as in Mixture.draw

    @property
    def sampler(self) -> "Order":
        """Return this object, on which Lightning calls `set_epoch`."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch; Lightning calls this method before each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        """Return the number of global batches of the current epoch.

        It is computed only once, because planning takes seconds for millions of rows.
        """
        done = self.done()
        key = self.epoch, [asdict(part) for part in done]
        if self.counted is None or self.counted[0] != key:
            self.counted = key, sum(part.batches for part in done) + len(self.left(done))
        return self.counted[1]

    def __iter__(self) -> Iterator[list[Draw]]:
        done, self.begun = self.done(), None
        left = self.left(done)
        self.parts = [*done, Part(self.world, self.batching, 0)]
        places, before = self.drawn
        for batch in left:
            share = batch[self.rank :: self.world]
            draws = [self.read(row, n) for row, n in zip(self.rows[places[share]].tolist(), before[share].tolist())]
            yield draws + [self.read(-1, 0)] * (-(-len(batch) // self.world) - len(draws))

    def read(self, row: int, before: int) -> Draw:
        """Return the draw of a row that was drawn `before` times in this epoch."""
        return Draw(row, hash((self.seed, self.epoch, row, *[before] * (before > 0))) & 0xFFFFFFFF)

    def changed(self) -> bool:
        """Return whether the resumed epoch was started with another batching or number of processes."""
        return self.begun is not None and any(
            (p.world, p.batching) != (self.world, self.batching) for p in self.begun[1]
        )

    def done(self) -> list[Part]:
        """Return the parts of the current epoch that were trained before this process started."""
        return self.begun[1] if self.begun and self.begun[0] == self.epoch else []

    def left(self, done: Sequence[Part]) -> list[np.ndarray]:
        """Return the global batches of the current epoch that have not been read yet.

        Args:
            done: Parts of the epoch that are already trained.

        Returns:
            One array per batch: indices into the drawn rows of the epoch.
        """
        self.drawn = np.arange(len(self.rows)), np.zeros(len(self.rows), dtype=np.int64)
        if self.mixture is not None:
            self.drawn = self.mixture.draw(self.epoch, self.turn)
        places = self.arrange(self.lying(), self.generator())
        now = Part(self.world, self.batching, 0)
        stretches: list[Part] = []
        for part in (*done, now):  # of one kind, one after the other: one stretch
            same = stretches and (stretches[-1].world, stretches[-1].batching) == (part.world, part.batching)
            if same:
                stretches[-1] = Part(part.world, part.batching, stretches[-1].batches + part.batches)
            else:
                stretches.append(part)
        for part in stretches[:-1]:
            gone = np.concatenate([places[:0], *self.plan(places, part)[: part.batches]])
            places = places[~np.isin(places, gone)]
        return self.plan(places, stretches[-1])[stretches[-1].batches :]

    def plan(self, places: np.ndarray, part: Part) -> list[np.ndarray]:
        """Group drawn rows, in the order of the epoch, into global batches.

        Args:
            places: Indices into the drawn rows.
            part: Batching and number of processes.
        """
        bucket, sizes = self.assign(self.drawn[0][places], part)
        found = []
        for b, size in enumerate(sizes):
            mine = np.flatnonzero(bucket == b)
            found += [mine[i : i + size * part.world] for i in range(0, len(mine), size * part.world)]
        if self.shards is not None:  # each as soon as it is full, so that shards are left in the order they are met
            found = sorted(found, key=lambda batch: batch[-1])
        elif self.shuffle and len(sizes) > 1:
            found = [found[i] for i in torch.randperm(len(found), generator=self.generator()).tolist()]
        return [places[batch] for batch in found]

    def assign(self, drawn: np.ndarray, part: Part) -> tuple[np.ndarray, list[int]]:
        """Assign drawn rows to buckets as `Batching.assign`, per file if every batch has rows of one file."""
        lengths = self.lengths(part.batching.budget)
        if self.mixture is None or not self.mixture.one_source:
            return part.batching.assign(self.rows[drawn], lengths, part.world)
        bucket, sizes = np.zeros(len(drawn), dtype=np.int64), []
        for source in np.unique(self.mixture.source[drawn]):
            mine = np.flatnonzero(self.mixture.source[drawn] == source)
            found, more = part.batching.assign(self.rows[drawn[mine]], lengths, part.world)
            bucket[mine] = found + len(sizes)
            sizes += more
        return bucket, sizes

    def lying(self) -> np.ndarray:
        """Return the shard of each drawn row; a row that is drawn twice counts in two shards, which spreads it."""
        places, before = self.drawn
        return np.zeros_like(before) if self.shards is None else self.shards.of[places] * (before.max() + 1) + before

    def turn(self, places: np.ndarray, seed: int) -> np.ndarray:
        """Return the rows of one file in a random order that is determined by a seed, shard by shard."""
        lying = np.zeros_like(places) if self.shards is None else self.shards.of[places]
        generator = torch.Generator().manual_seed(hash((self.seed, seed)) & 0xFFFFFFFF)
        return places[self.arrange(lying, generator)]

    def arrange(self, lying: np.ndarray, generator: torch.Generator) -> np.ndarray:
        """Return a permutation in which nearby rows belong to at most `window` shards."""
        if not self.shuffle:
            return np.argsort(lying, kind="stable")
        if self.shards is None:
            return torch.randperm(len(lying), generator=generator).numpy()
        _, lying = np.unique(lying, return_inverse=True)
        rank = torch.randperm(int(lying.max(initial=0)) + 1, generator=generator).numpy()
        spread = torch.rand(len(lying), generator=generator, dtype=torch.float64).numpy()
        return np.argsort(rank[lying] + self.shards.window * spread, kind="stable")

    def generator(self) -> torch.Generator:
        """Return the random generator of the current epoch."""
        return torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)

    def state_dict(self, taken: int) -> dict[str, Any]:
        """Return the position in the epoch as plain data.

        Args:
            taken: Number of batches since this process started or resumed the epoch.
        """
        now = Part(self.world, self.batching, 0)
        # Saved anew before its first batch, as when a run is stopped again in the validation that it began with.
        parts = [*self.begun[1], now] if self.begun else self.parts or [now]
        epoch = self.begun[0] if self.begun else self.epoch
        last = Part(self.world, self.batching, taken)
        return {"epoch": epoch, "parts": [asdict(part) for part in (*parts[:-1], last)]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the position in an epoch, which is then continued."""
        parts = [Part(p["world"], Batching(**p["batching"]), p["batches"]) for p in state["parts"]]
        self.begun = state["epoch"], parts


def length_limits(lengths: Any) -> dict[str, float]:
    """Return the maximum length of each input that has one; raise ValueError if `lengths` is not a mapping."""
    if not isinstance(lengths, Mapping | None):
        raise ValueError(
            f"datamodule.max_batch_length: got {lengths}, wanted an input's name with its own, as {{text: 4096}}"
        )
    return {name: most for name, most in (lengths or {}).items() if most is not None}
