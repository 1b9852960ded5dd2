"""Search for the largest batch size with which training fits in memory, for each bucket of rows of similar length.

Every trial uses the longest rows, which need the most memory.
"""

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
    """Training rows of similar length."""

    rows: int  # number of rows in the bucket
    longest: Mapping[str, float]  # input of `max_batch_length` to the tokens or seconds of its longest row
    batch: Batch  # the longest row of each input, padded; one row may be the longest of several inputs
    windows: int  # maximum number of windows of one row of the data


class BucketedData(DataSource, Protocol):
    """Data whose training rows are divided into buckets of similar length."""

    train_dataloader: Any


@dataclass(frozen=True, repr=False)
class BatchSizeReport(Report):
    """Largest batch sizes with which training fits in memory.

    Attributes:
        buckets: Buckets of the training rows; a single one if the data has no `max_batch_length`.
        sizes: Largest batch size of each bucket.
    """

    buckets: Sequence[Bucket]
    sizes: Sequence[int]

    @property
    def batch_size(self) -> int:
        """Return the batch size to set: the largest one of all buckets.

        If `budget` is set as well, the batches of the other buckets are not larger than their own largest batch size.
        """
        return max(self.sizes)

    @property
    def budget(self) -> dict[str, float]:
        """Return the `max_batch_length` to set: input name to the tokens or seconds of a batch, including padding.

        It is empty if the data has no `max_batch_length`.
        """
        return {
            name: min(
                size * bucket.longest[name] for bucket, size in zip(self.buckets, self.sizes) if bucket.longest[name]
            )
            for name in self.buckets[0].longest
        }

    @property
    def metrics(self) -> dict[str, float]:  # type: ignore[override]
        """Return the metrics `scale_batch/batch_size`, and `scale_batch/budget/INPUT` for each input of `budget`."""
        budget = {f"scale_batch/budget/{name}": most for name, most in self.budget.items()}
        return {"scale_batch/batch_size": self.batch_size, **budget}

    def table(self) -> Table:
        """Return a table with one row per bucket."""
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
    """Find the largest batch size with which two training steps fit in memory.

    Several batch sizes are tried in this process. The trials change the weights of the task; the data loader is
    restored.

    Args:
        task: The task to train.
        data: A LightningDataModule of `mm`.
        trainer: Function that creates a Trainer for one epoch on one device. It is called for each trial.
        max_batch_size: Largest batch size to try.
        memory_limit_gib: Memory limit in GiB; None: the memory that is currently free.
        memory_headroom: Fraction of the free memory that is not used, at least 0 and below 1.
        report: Function called with a line of text for each bucket; None: the lines are logged by the logger `mm`.

    Returns:
        The report, with the batch size and the budget to set.

    Raises:
        ValueError: If an argument is out of range, if the Trainer has several processes, or if not even a batch of one
            row fits in memory.
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
    fits(task, data, trainer, buckets[0], 1)  # allocates what is loaded on first use, which does not count
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
    """Raise a ValueError if a limit is out of range."""
    if not isinstance(max_batch_size, int) or max_batch_size < 1:
        raise ValueError(f"max_batch_size: got {max_batch_size}, wanted at least 1 row")
    if not isinstance(memory_headroom, int | float) or not 0 <= memory_headroom < 1:
        raise ValueError(f"memory_headroom: got {memory_headroom}, wanted a part of the memory, from 0 to below 1")
    if memory_limit_gib is not None and (not isinstance(memory_limit_gib, int | float) or memory_limit_gib <= 0):
        raise ValueError(f"memory_limit_gib: got {memory_limit_gib}, wanted GiB above 0, or null")


def length_buckets(data: BucketedData) -> Iterator[Bucket]:
    """Yield the buckets of the training rows; a single one if the data has no `max_batch_length`."""
    order = data.train_dataloader().order
    lengths = data.lengths(list(data.transforms))  # input to the length of every row, (N,)
    bucket, _ = order.batching.assign(order.rows, lengths, 1)
    for number in np.unique(bucket):
        rows = order.rows[bucket == number]
        worst = {int(rows[length[rows].argmax()]) for length in lengths.values()}  # the longest row of each input
        longest = {name: float(lengths[name][rows].max()) for name in order.batching.budget}
        batch = data.batch(sorted(worst))
        yield Bucket(len(rows), longest, batch, int(batch.row.bincount().max()))


def largest(trains: Callable[[int], bool], most: int) -> int:
    """Find the largest batch size that can be trained, with a relative error of at most 1/32; 0 if there is none.

    The size is doubled as long as the trial succeeds. Then the interval of the largest size is bisected.

    Args:
        trains: Function that returns whether a batch size can be trained.
        most: Maximum batch size.
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
    """Return whether two training steps with a batch of some rows fit in memory.

    The second step is needed because the state of the optimizer is allocated in the first one.

    Args:
        task: The task to train.
        data: The data; its loader is replaced during the trial.
        trainer: Function that creates a Trainer.
        bucket: The bucket of the rows.
        rows: Number of rows in the batch.
    """
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
    """Loader that yields the same batch twice. Lightning would treat a list as several loaders."""

    def __init__(self, batch: Batch):
        self.batch = batch

    def __len__(self) -> int:
        return 2

    def __iter__(self) -> Iterator[Batch]:
        yield self.batch
        yield self.batch


def repeat_to(bucket: Bucket, rows: int) -> Batch:
    """Return a batch with a number of rows, made by repeating the longest rows of a bucket."""
    return pick(bucket.batch, torch.arange(rows * bucket.windows) % len(bucket.batch.row))
