"""Find the largest batch that trains, of the longest rows, per length bucket where there are any."""

import ctypes
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from mm.cli._app import launch, save_overrides, shown
from mm.messages import plain, quote

if TYPE_CHECKING:
    import torch
    from omegaconf import DictConfig

    from mm.types import Batch

M_MMAP_THRESHOLD = -3  # of glibc's malloc.h
UNLIMITED = 2**60  # bytes; what version 1 of control groups shows where there is no limit is near 2**63


class Bucket(NamedTuple):
    """Rows of similar length."""

    rows: int  # how many there are
    longest: dict[str, float]  # input with a budget -> tokens or seconds
    batch: "Batch"  # of few rows, padded to the longest of each input
    windows: int  # rows of the batch that one row of the data becomes at most


def main(argv: list[str]) -> None:
    launch("find_batch", argv, job)


def job(cfg: "DictConfig", folder: Path) -> None:
    """Two steps of training for each size that is tried, in this process."""
    from omegaconf import OmegaConf, open_dict

    from mm.cli import _finish, _run, _trainer
    from mm.runs.results import write_metrics

    check(cfg)
    if unread := [named.by for named in _finish.named_keys() if named.key.split(".")[0] in ("logger", "callbacks")]:
        print(f"mm find_batch logs nothing and calls no callbacks; not read: {', '.join(unread)}")
    with open_dict(cfg):
        cfg.trainer.enable_progress_bar = False  # else Lightning adds one
    run = _run.prepare(cfg)
    trainer = _trainer.build(cfg, [], None)
    if trainer.world_size > 1:
        raise ValueError(
            f"mm find_batch: got {trainer.world_size} processes, wanted one: set trainer=default "
            "trainer.devices=1; what it finds is per process"
        )
    OmegaConf.save(cfg, folder / "config.yaml", resolve=True)
    save_overrides(folder)
    device = trainer.strategy.root_device
    found = []
    parts = list(buckets(run.datamodule))
    trains(cfg, run, parts[0], 1)  # what is loaded on first use is no part of a batch
    limit = allowed(device, cfg.max_gib, cfg.reserve)
    for bucket in parts:

        def fits(rows: int, of: Bucket = bucket) -> bool:
            with memory_limit(device, limit):
                return trains(cfg, run, of, rows)

        most = min(cfg.most, bucket.rows)
        rows = largest(fits, most)
        tell(bucket, rows, most)
        found.append((bucket, rows))
    if not all(rows for _, rows in found):
        raise ValueError("not even one row trains: take a smaller model, shorter inputs, or raise max_gib")
    rows, budget = overrides(found)
    figures = {"batch_size": rows} | {f"budget/{name}": most for name, most in budget.items()}
    write_metrics(folder, {f"find_batch/{name}": value for name, value in figures.items()}, {})
    more = ", ".join(f"{name}: {most:g}" for name, most in budget.items())
    print(f"type: datamodule.batch_size={rows}" + (f" {quote(f'datamodule.budget={{{more}}}')}" if budget else ""))
    print(shown(folder))


def check(cfg: "DictConfig") -> None:
    """Make the run as short as a trial. Errors: ValueError for settings that have no meaning here."""
    if not isinstance(cfg.most, int) or cfg.most < 1:
        raise ValueError(f"most: got {cfg.most}, wanted at least 1 row")
    if not isinstance(cfg.reserve, int | float) or not 0 <= cfg.reserve < 1:
        raise ValueError(f"reserve: got {cfg.reserve}, wanted a part of the memory, from 0 to below 1")
    if cfg.max_gib is not None and (not isinstance(cfg.max_gib, int | float) or cfg.max_gib <= 0):
        raise ValueError(f"max_gib: got {cfg.max_gib}, wanted GiB above 0, or null")
    if cfg.resume:
        raise ValueError("resume: a search begins anew; leave it out")
    length = {"max_epochs": 1, "max_steps": -1, "max_time": None, "limit_train_batches": 1.0, "limit_val_batches": 0}
    for key, value in (length | {"accumulate_grad_batches": 1}).items():  # of which the memory does not depend
        cfg.trainer[key] = value


def buckets(datamodule: Any) -> Iterator[Bucket]:
    """Those that training makes; one where there is no budget."""
    import numpy as np

    order = datamodule.train_dataloader().order
    lengths = datamodule.lengths(list(datamodule.transforms))  # (N,) of every row
    bucket, _ = order.batching.assign(order.rows, lengths, 1)
    for number in np.unique(bucket):
        rows = order.rows[bucket == number]
        worst = {int(rows[length[rows].argmax()]) for length in lengths.values()}  # one row may be all of them
        longest = {name: float(lengths[name][rows].max()) for name in order.batching.budget}
        batch = datamodule.batch(sorted(worst))
        yield Bucket(len(rows), longest, batch, int(batch.row.bincount().max()))


def largest(trains: Callable[[int], bool], most: int) -> int:
    """Rows, to within a thirty-second: doubled while they train, then halving what is between; 0 where one doesn't."""
    good, bad = 0, most + 1
    size = 1
    while size < bad and trains(size):
        good, size = size, min(2 * size, most) if size < most else bad
    bad = min(size, bad)
    while bad - good > max(1, good // 32):
        middle = (good + bad) // 2
        good, bad = (middle, bad) if trains(middle) else (good, middle)
    return good


def trains(cfg: "DictConfig", run: Any, bucket: Bucket, rows: int) -> bool:
    """Whether two steps of so many rows fit: in the second, the optimizer's state is there from the start."""
    import gc

    import torch
    from lightning.pytorch.callbacks import Checkpoint, EarlyStopping, ProgressBar
    from lightning.pytorch.loggers.logger import DummyLogger

    from mm.callbacks.kept import Kept
    from mm.cli import _trainer
    from mm.features.store import FrozenFeatures

    built = _trainer.build_callbacks(cfg, run.task.model)
    # a frozen encoder counts as if it ran at every step
    left_out = (Checkpoint, EarlyStopping, ProgressBar, FrozenFeatures, Kept)
    callbacks = [callback for callback in built if not isinstance(callback, left_out)]
    try:
        batch = tiled(bucket, rows)
        run.datamodule.train_dataloader = lambda: Twice(batch)
        _trainer.build(cfg, callbacks, DummyLogger()).fit(run.task, datamodule=run.datamodule)
        return True
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        return False
    finally:
        run.task.zero_grad()
        gc.collect()
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()


class Twice:
    """A loader of two batches; Lightning takes a list for several loaders."""

    def __init__(self, batch: "Batch"):
        self.batch = batch

    def __len__(self) -> int:
        return 2

    def __iter__(self) -> Iterator["Batch"]:
        yield self.batch
        yield self.batch


def tiled(bucket: Bucket, rows: int) -> "Batch":
    """As many rows of the data, the few over and over."""
    import torch

    from mm.types import pick

    return pick(bucket.batch, torch.arange(rows * bucket.windows) % len(bucket.batch.row))


def out_of_memory(error: BaseException) -> bool:
    """Whether an allocator, or a library that asked one, has refused."""
    import torch

    said = str(error).lower()
    # oneDNN says no more than that it could not create a primitive
    signs = (
        "can't allocate memory",
        "bad_alloc",
        "out of memory",
        "could not create a",
        "could not execute a primitive",
    )
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(sign in said for sign in signs)


def allowed(device: "torch.device", max_gib: float | None, reserve: float) -> float:
    """Bytes that may be used in all: on CUDA of the device, else by the process."""
    import torch

    if max_gib is not None:
        return max_gib * 2**30
    if device.type == "cuda":
        free = torch.cuda.mem_get_info(device)[0]
        return (1 - reserve) * (free + torch.cuda.memory_reserved(device))
    own = memory("/proc/self/status", "VmRSS")
    free = memory("/proc/meminfo", "MemAvailable") + own
    return (1 - reserve) * min([free, *(left + own for left in cgroup_memory())])


def cgroup_memory(proc: Path = Path("/proc/self/cgroup"), mount: Path = Path("/sys/fs/cgroup")) -> list[int]:
    """Memory that the control groups of this process still allow, as a container's limit is.

    A process is bound by the limits of its own group and of every group above it. Page cache counts as used, but is
    given back when memory is needed, so that it is left out here.

    Args:
        proc: The file that names the groups of this process.
        mount: Where the groups are mounted: those of version 2, or the folder `memory` of version 1.

    Returns:
        Bytes that are left in each group with a limit; none where there is no limit, or no such file system.
    """
    if not proc.is_file():
        return []
    found = []
    for line in proc.read_text(encoding="utf-8").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            root, limit, usage, cache = mount, "memory.max", "memory.current", "inactive_file"
        elif "memory" in controllers.split(","):
            root, limit, usage = mount / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
            cache = "total_inactive_file"
        else:
            continue
        below = Path(path.lstrip("/"))
        # Within a container the path may be the host's, and its own group is mounted at the top.
        for folder in {root / part for part in (below, *below.parents)} | {root}:
            files = [folder / name for name in (limit, usage, "memory.stat")]
            if not all(file.is_file() for file in files):
                continue
            most, used, stat = (file.read_text(encoding="utf-8") for file in files)
            if most.strip() == "max" or int(most) >= UNLIMITED:
                continue
            cached = [int(value) for name, value in map(str.split, stat.splitlines()) if name == cache]
            found.append(max(0, int(most) - int(used) + sum(cached)))
    return found


@contextmanager
def memory_limit(device: "torch.device", most: float) -> Iterator[None]:
    """Beyond so many bytes an allocation fails, instead of the machine running out.

    Errors: ValueError where the system can't limit a process.
    """
    import torch

    if device.type == "cuda":
        whole = torch.cuda.mem_get_info(device)[1]
        torch.cuda.set_per_process_memory_fraction(min(1.0, most / whole), device)
        yield
        return
    if sys.platform != "linux":
        raise ValueError("mm find_batch: on a CPU it needs Linux, where a process's memory can be limited")
    import resource

    libc = ctypes.CDLL(None)
    libc.mallopt(M_MMAP_THRESHOLD, 2**16)  # so that the memory of tensors is given back as soon as they are freed
    libc.malloc_trim(0)
    before = resource.getrlimit(resource.RLIMIT_DATA)
    left = max(0.0, most - memory("/proc/self/status", "VmRSS"))
    resource.setrlimit(resource.RLIMIT_DATA, (memory("/proc/self/status", "VmData") + int(left), before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)


def memory(file: str, name: str) -> int:
    """Bytes that a file of /proc tells under a name."""
    (line,) = [line for line in Path(file).read_text(encoding="utf-8").splitlines() if line.startswith(f"{name}:")]
    return int(line.split()[1]) * 1024


def tell(bucket: Bucket, rows: int, most: int) -> None:
    """One line of what was found."""
    about = "".join(f", {name} up to {longest:g}" for name, longest in bucket.longest.items())
    end = " (more were not tried)" if rows == most else ""
    print(f"{bucket.rows} rows{plain(about)}: a batch of {rows} trains{end}")


def overrides(found: list[tuple[Bucket, int]]) -> tuple[int, dict[str, float]]:
    """(batch_size, input -> budget) under which no bucket's batch is larger than what trains."""
    budget = {
        name: min(rows * bucket.longest[name] for bucket, rows in found if bucket.longest[name])
        for name in found[0][0].longest
    }
    return max(rows for _, rows in found), budget
