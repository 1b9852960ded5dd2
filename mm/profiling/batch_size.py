"""Find the largest batch that trains, of the longest rows, per length bucket where there are any."""

import gc
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from lightning import LightningDataModule, Trainer

from mm.data_source import DataSource
from mm.messages import plain
from mm.profiling.memory import available_memory, is_out_of_memory, memory_limit
from mm.reports import Report, Table
from mm.tasks.base import Task
from mm.tensors import pick
from mm.types import Batch

logger = logging.getLogger("mm")


class Bucket(NamedTuple):
    """Rows of similar length."""

    rows: int  # how many there are
    longest: Mapping[str, float]  # input with a budget -> tokens or seconds
    batch: Batch  # of few rows, padded to the longest of each input
    windows: int  # rows of the batch that one row of the data becomes at most


class BucketedData(DataSource, Protocol):
    """Data that is trained on in length buckets."""

    train_dataloader: Any


@dataclass(frozen=True, repr=False)
class BatchSizeReport(Report):
    """What `find_task_batch_size` returns.

    Attributes:
        buckets: Length buckets of the training rows; one where there is no budget.
        sizes: The largest batch of each bucket that trains.
    """

    buckets: Sequence[Bucket]
    sizes: Sequence[int]

    @property
    def batch_size(self) -> int:
        """Return the batch size under which, with the budget, no bucket's batch is larger than what trains."""
        return max(self.sizes)

    @property
    def budget(self) -> dict[str, float]:
        """Return input to tokens or seconds of a batch, padding included; empty where there is no budget."""
        return {
            name: min(
                size * bucket.longest[name] for bucket, size in zip(self.buckets, self.sizes) if bucket.longest[name]
            )
            for name in self.buckets[0].longest
        }

    @property
    def metrics(self) -> dict[str, float]:  # type: ignore[override]
        """`scale_batch/batch_size`, and `scale_batch/budget/INPUT` where there is a budget."""
        budget = {f"scale_batch/budget/{name}": most for name, most in self.budget.items()}
        return {"scale_batch/batch_size": self.batch_size, **budget}

    def table(self) -> Table:
        """Return a row for each bucket."""
        names = list(self.buckets[0].longest)
        rows = [
            (bucket.rows, *(bucket.longest[name] for name in names), size)
            for bucket, size in zip(self.buckets, self.sizes)
        ]
        return Table(("rows", *(f"{name} up to" for name in names), "batch size"), rows)


def find_task_batch_size(
    task: Task,
    data: BucketedData,
    trainer: Callable[[], Trainer],
    max_batch_size: int = 8192,
    memory_limit_gib: float | None = None,
    memory_headroom: float = 0.05,
    report: Callable[[str], None] | None = None,
) -> BatchSizeReport:
    """Find the largest batch with which two steps of training fit into memory, by trying sizes in this process.

    The task's weights are trained by the trials; the data is put back.

    Args:
        task: What is trained.
        data: A LightningDataModule of `mm`.
        trainer: Makes a trainer for one epoch, on one device, anew for each trial.
        max_batch_size: Larger batches are not tried.
        memory_limit_gib: Limit of the memory in GiB; None: the memory that is free now.
        memory_headroom: Fraction of the free memory that is left free, from 0 to below 1.
        report: Called with a line for each bucket; None for the logger `mm`.

    Returns:
        The sizes, and the batch size and budget that keep to them.

    Raises:
        ValueError: If an argument is out of range, the trainer has several processes, or not even one row trains.
    """
    check_limits(max_batch_size, memory_limit_gib, memory_headroom)
    first = trainer()
    if first.world_size > 1:
        raise ValueError(
            f"mm scale_batch: got {first.world_size} processes, wanted one: set trainer=default "
            "trainer.devices=1; what it finds is per process"
        )
    device = first.strategy.root_device
    buckets, sizes = list(length_buckets(data)), []
    fits(task, data, trainer, buckets[0], 1)  # what is loaded on first use is no part of a batch
    limit = available_memory(device, memory_limit_gib, memory_headroom)
    for bucket in buckets:

        def trains(rows: int, of: Bucket = bucket) -> bool:
            with memory_limit(device, limit):
                return fits(task, data, trainer, of, rows)

        most = min(max_batch_size, bucket.rows)
        sizes.append(largest(trains, most))
        about = "".join(f", {name} up to {longest:g}" for name, longest in bucket.longest.items())
        end = " (more were not tried)" if sizes[-1] == most else ""
        (report or logger.info)(f"{bucket.rows} rows{plain(about)}: a batch of {sizes[-1]} trains{end}")
    if not all(sizes):
        raise ValueError("not even one row trains: take a smaller model, shorter inputs, or raise memory_limit_gib")
    return BatchSizeReport(buckets, sizes)


def check_limits(max_batch_size: object, memory_limit_gib: object, memory_headroom: object) -> None:
    """Raise ValueError for a limit that is out of range."""
    if not isinstance(max_batch_size, int) or max_batch_size < 1:
        raise ValueError(f"max_batch_size: got {max_batch_size}, wanted at least 1 row")
    if not isinstance(memory_headroom, int | float) or not 0 <= memory_headroom < 1:
        raise ValueError(f"memory_headroom: got {memory_headroom}, wanted a part of the memory, from 0 to below 1")
    if memory_limit_gib is not None and (not isinstance(memory_limit_gib, int | float) or memory_limit_gib <= 0):
        raise ValueError(f"memory_limit_gib: got {memory_limit_gib}, wanted GiB above 0, or null")


def length_buckets(data: BucketedData) -> Iterator[Bucket]:
    """Yield the length buckets of the training rows; one where there is no budget."""
    order = data.train_dataloader().order
    lengths = data.lengths(list(data.transforms))  # (N,) of every row
    bucket, _ = order.batching.assign(order.rows, lengths, 1)
    for number in np.unique(bucket):
        rows = order.rows[bucket == number]
        worst = {int(rows[length[rows].argmax()]) for length in lengths.values()}  # one row may be all of them
        longest = {name: float(lengths[name][rows].max()) for name in order.batching.budget}
        batch = data.batch(sorted(worst))
        yield Bucket(len(rows), longest, batch, int(batch.row.bincount().max()))


def largest(trains: Callable[[int], bool], most: int) -> int:
    """Return how many rows train, to within a thirty-second; 0 where one does not.

    Sizes are doubled while they train, and then what is between is halved.
    """
    good, bad = 0, most + 1
    size = 1
    while size < bad and trains(size):
        good, size = size, min(2 * size, most) if size < most else bad
    bad = min(size, bad)
    while bad - good > max(1, good // 32):
        middle = (good + bad) // 2
        good, bad = (middle, bad) if trains(middle) else (good, middle)
    return good


def fits(task: Task, data: BucketedData, trainer: Callable[[], Trainer], bucket: Bucket, rows: int) -> bool:
    """Return whether two steps of so many rows fit: in the second, the optimizer's state is there from the start."""
    read = data.train_dataloader
    try:
        batch = repeat_to(bucket, rows)
        data.train_dataloader = lambda: TwoBatches(batch)
        assert isinstance(data, LightningDataModule)
        trainer().fit(task, datamodule=data)
        return True
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return False
    finally:
        data.train_dataloader = read
        task.zero_grad()
        gc.collect()
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()


class TwoBatches:
    """A loader of the same batch twice; Lightning takes a list for several loaders."""

    def __init__(self, batch: Batch):
        self.batch = batch

    def __len__(self) -> int:
        return 2

    def __iter__(self) -> Iterator[Batch]:
        yield self.batch
        yield self.batch


def repeat_to(bucket: Bucket, rows: int) -> Batch:
    """Return a batch of as many rows of the data: the few rows of a bucket, over and over."""
    return pick(bucket.batch, torch.arange(rows * bucket.windows) % len(bucket.batch.row))
