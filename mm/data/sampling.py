"""Which rows make a batch and when: shuffled, of similar length under a budget, shared out, exact on resume."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import Sampler

from mm.data.mixing import Mixture

Lengths = Mapping[str, np.ndarray]  # input name -> (N,) of every row: tokens, or seconds; 0 where absent


class Draw(NamedTuple):
    """One row to be read, and the seed of whatever is random in reading it."""

    row: int  # -1: filler
    seed: int


@dataclass(frozen=True)
class Batching:
    """How rows become batches.

    batch_size: most rows per process and step; budget: input name -> most tokens (text) or seconds (audio) per process
    and step, windows and padding included; buckets: of rows of similar length, per input with a budget.
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
        """-> (N,) the bucket of each of the rows; rows per process and step of each bucket.

        So few that each has tokens or rows for four global batches and more: one that is not full is waste.
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
    """A stretch of an epoch that was trained in one way."""

    world: int
    batching: Batching
    batches: int  # global steps taken


@dataclass
class Shards:
    """Where rows lie, so that those that are read together lie together."""

    of: np.ndarray  # (N,) shard of each row
    window: int  # how many shards the rows of a moment are from

    @property
    def matter(self) -> bool:
        """Whether there are more than may be open at a time."""
        return len(np.unique(self.of)) > self.window


class Order(Sampler[list[Draw]]):
    """This process's batches of an epoch, in training shuffled anew each time, evened out with fillers.

    A global batch is what all processes take in one step; process p of n takes every n-th of its rows from p on, so
    that n processes learn, step by step, what one with n times the batch would. An epoch is a pure function of seed,
    epoch and the parts already trained: one that was begun goes on where it was, in any number of processes.
    lengths: gives those of every row for the inputs with a budget; shards: where the rows lie, null where they are
    equally at hand; mixture: how often rows of several files, or classes, are drawn, null for each once.
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
        """Where Lightning looks for `set_epoch`."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning before each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        """Global batches of the current epoch. Planning takes seconds for millions of rows, so it is done once."""
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
        """A row for the first, second ... time in the epoch."""
        return Draw(row, hash((self.seed, self.epoch, row, *[before] * (before > 0))) & 0xFFFFFFFF)

    def changed(self) -> bool:
        """Whether the epoch to go on with was begun in another way."""
        return self.begun is not None and any(
            (p.world, p.batching) != (self.world, self.batching) for p in self.begun[1]
        )

    def done(self) -> list[Part]:
        """What was trained of the current epoch before this process began."""
        return self.begun[1] if self.begun and self.begun[0] == self.epoch else []

    def left(self, done: Sequence[Part]) -> list[np.ndarray]:
        """The global batches of the current epoch that are still to come, as places in what is drawn."""
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
        """Places, in the order of the epoch -> global batches."""
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
        """As Batching has it, or so for each file of a mixture, where a batch is of one."""
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
        """Where what is drawn lies; what is drawn twice counts as lying in two places, and so is spread."""
        places, before = self.drawn
        return np.zeros_like(before) if self.shards is None else self.shards.of[places] * (before.max() + 1) + before

    def turn(self, places: np.ndarray, seed: int) -> np.ndarray:
        """One file's rows in one of many orders, whole shards one after the other."""
        lying = np.zeros_like(places) if self.shards is None else self.shards.of[places]
        generator = torch.Generator().manual_seed(hash((self.seed, seed)) & 0xFFFFFFFF)
        return places[self.arrange(lying, generator)]

    def arrange(self, lying: np.ndarray, generator: torch.Generator) -> np.ndarray:
        """A permutation; rows near each other in it are from no more than `window` of the shards they lie in."""
        if not self.shuffle:
            return np.argsort(lying, kind="stable")
        if self.shards is None:
            return torch.randperm(len(lying), generator=generator).numpy()
        _, lying = np.unique(lying, return_inverse=True)
        rank = torch.randperm(int(lying.max(initial=0)) + 1, generator=generator).numpy()
        spread = torch.rand(len(lying), generator=generator, dtype=torch.float64).numpy()
        return np.argsort(rank[lying] + self.shards.window * spread, kind="stable")

    def generator(self) -> torch.Generator:
        """Of this epoch."""
        return torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)

    def state_dict(self, taken: int) -> dict[str, Any]:
        """Plain data: where the epoch stands, after `taken` batches since this process went on with it."""
        now = Part(self.world, self.batching, 0)
        # Saved anew before its first batch, as when a run is stopped again in the validation that it began with.
        parts = [*self.begun[1], now] if self.begun else self.parts or [now]
        epoch = self.begun[0] if self.begun else self.epoch
        last = Part(self.world, self.batching, taken)
        return {"epoch": epoch, "parts": [asdict(part) for part in (*parts[:-1], last)]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with the epoch that the state names."""
        parts = [Part(p["world"], Batching(**p["batching"]), p["batches"]) for p in state["parts"]]
        self.begun = state["epoch"], parts
