"""Which rows make a batch and when: shuffled, of similar length under a budget, shared out, exact on resume."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import Sampler

Lengths = Mapping[str, np.ndarray]  # input name -> (N,) of every row: tokens, or seconds; 0 where absent


class Draw(NamedTuple):
    """One row to be read, and the seed of whatever is random in reading it."""

    row: int  # -1: filler
    seed: int


@dataclass(frozen=True)
class Batching:
    """How rows become batches.

    batch_size: most rows per process and step; budget: input name -> most tokens (text) or seconds (audio) per process
    and step, padding included, null for no limit; buckets: of rows of similar length, per input with a budget.
    """

    batch_size: int
    budget: Mapping[str, float] = field(default_factory=dict)
    buckets: int = 1

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ValueError(f"datamodule.batch_size: got {self.batch_size}, wanted at least 1")
        if self.buckets < 1:
            raise ValueError(f"datamodule.buckets: got {self.buckets}, wanted at least 1")
        for name, most in self.budget.items():
            if not most > 0:
                raise ValueError(f"datamodule.budget.{name}: got {most}, wanted tokens or seconds above 0")

    def assign(self, rows: np.ndarray, lengths: Lengths, world: int) -> tuple[np.ndarray, list[int]]:
        """-> (N,) the bucket of each of the rows; rows per process and step of each bucket.

        Every bucket holds at least four global batches, as far as there are as many: one that is not full is waste.
        """
        bucket = np.zeros(len(rows), dtype=np.int64)
        for name, most in self.budget.items():
            parts = np.zeros_like(bucket)
            for b in range(bucket.max(initial=0) + 1):
                mine = np.flatnonzero(bucket == b)
                batches = max(len(mine) / self.batch_size, lengths[name][rows[mine]].sum() / most)
                count = max(1, min(self.buckets, int(batches // (4 * world))))
                order = np.argsort(lengths[name][rows[mine]], kind="stable")
                parts[mine[order]] = np.arange(len(mine)) * count // max(1, len(mine))
            _, bucket = np.unique(bucket * self.buckets + parts, return_inverse=True)
        sizes = []
        for b in range(bucket.max(initial=0) + 1):
            longest = {name: lengths[name][rows[bucket == b]].max(initial=0) for name in self.budget}
            fits = [most // longest[name] for name, most in self.budget.items() if longest[name] > 0]
            sizes.append(max(1, int(min([self.batch_size, *fits]))))
        return bucket, sizes


@dataclass
class Part:
    """A stretch of an epoch that was trained in one way."""

    world: int
    batching: Batching
    batches: int  # global steps taken


class Order(Sampler[list[Draw]]):
    """This process's batches of an epoch, in training shuffled anew each time, evened out with fillers.

    A global batch is what all processes take in one step; process p of n takes every n-th of its rows from p on, so
    that n processes learn, step by step, what one with n times the batch would. An epoch is a pure function of seed,
    epoch and the parts already trained: one that was begun goes on where it was, in any number of processes.
    lengths: gives those of every row for the inputs with a budget.
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
    ):
        self.rows = rows
        self.batching = batching
        self.shuffle = shuffle
        self.seed = seed
        self.rank = rank
        self.world = world
        self.lengths = lengths
        self.epoch = 0
        self.begun: tuple[int, list[Part]] | None = None  # the epoch to go on with, and what was trained of it
        self.parts: list[Part] = []  # of the current epoch, this one last

    @property
    def sampler(self) -> "Order":
        """Where Lightning looks for `set_epoch`."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning before each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        done = self.done()
        return sum(part.batches for part in done) + len(self.left(done))

    def __iter__(self) -> Iterator[list[Draw]]:
        done, self.begun = self.done(), None
        left = self.left(done)
        self.parts = [*done, Part(self.world, self.batching, 0)]
        for batch in left:
            share = self.rows[batch[self.rank :: self.world]].tolist()
            share += [-1] * (-(-len(batch) // self.world) - len(share))
            yield [Draw(row, hash((self.seed, self.epoch, row)) & 0xFFFFFFFF) for row in share]

    def changed(self) -> bool:
        """Whether the epoch to go on with was begun in another way."""
        return self.begun is not None and any(
            (p.world, p.batching) != (self.world, self.batching) for p in self.begun[1]
        )

    def done(self) -> list[Part]:
        """What was trained of the current epoch before this process began."""
        return self.begun[1] if self.begun and self.begun[0] == self.epoch else []

    def left(self, done: Sequence[Part]) -> list[np.ndarray]:
        """The global batches of the current epoch that are still to come, as places in `rows`."""
        places = np.arange(len(self.rows))
        if self.shuffle:
            places = places[self.permutation(len(places))]
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
        """Places, in the order of the epoch -> global batches."""
        bucket, sizes = part.batching.assign(self.rows[places], self.lengths(part.batching.budget), part.world)
        batches = []
        for b, size in enumerate(sizes):
            mine = places[bucket == b]
            batches += [mine[i : i + size * part.world] for i in range(0, len(mine), size * part.world)]
        if self.shuffle and len(sizes) > 1:
            batches = [batches[i] for i in self.permutation(len(batches))]
        return batches

    def permutation(self, count: int) -> list[int]:
        """Of this epoch."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        return torch.randperm(count, generator=generator).tolist()

    def state_dict(self, taken: int) -> dict[str, Any]:
        """Plain data: where the epoch stands, after `taken` batches since this process went on with it."""
        parts = self.parts or [Part(self.world, self.batching, 0)]
        last = Part(self.world, self.batching, taken)
        return {"epoch": self.epoch, "parts": [asdict(part) for part in (*parts[:-1], last)]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with the epoch that the state names."""
        parts = [Part(p["world"], Batching(**p["batching"]), p["batches"]) for p in state["parts"]]
        self.begun = state["epoch"], parts
