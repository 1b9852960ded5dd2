"""The memory that is available to this process, and a limit for it."""

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

M_MMAP_THRESHOLD = -3  # constant of malloc.h in glibc
UNLIMITED = 2**60  # bytes; without a limit, version 1 of control groups reports a number near 2**63


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error means that an allocation of memory failed."""
    message = str(error).lower()
    # oneDNN reports only that it could not create a primitive.
    signs = (
        "can't allocate memory",
        "bad_alloc",
        "out of memory",
        "could not create a",
        "could not execute a primitive",
    )
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(sign in message for sign in signs)


def available_memory(device: torch.device, limit_gib: float | None = None, headroom: float = 0.0) -> float:
    """Return the bytes that may be used in total: of the device on CUDA, otherwise of the process.

    Args:
        device: Device of the model.
        limit_gib: Memory limit in GiB; None: the memory that is currently free.
        headroom: Fraction of the free memory that is not used.
    """
    if limit_gib is not None:
        return limit_gib * 2**30
    if device.type == "cuda":
        free = torch.cuda.mem_get_info(device)[0]
        return (1 - headroom) * (free + torch.cuda.memory_reserved(device))
    own = proc_bytes("/proc/self/status", "VmRSS")
    free = proc_bytes("/proc/meminfo", "MemAvailable") + own
    return (1 - headroom) * min([free, *(left + own for left in cgroup_memory())])


def cgroup_memory(proc: Path = Path("/proc/self/cgroup"), mount: Path = Path("/sys/fs/cgroup")) -> list[int]:
    """Return the memory that the control groups of this process still allow, such as the limit of a container.

    A process is subject to the limits of its own group and of all groups above it. Inactive page cache is regarded as
    available, because the kernel reclaims it when memory is needed.

    Args:
        proc: File that lists the groups of this process.
        mount: Mount point of the groups of version 2; its subfolder `memory` is that of version 1.

    Returns:
        Remaining bytes of each group with a limit; empty if there is no limit, or no control groups.
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
        # In a container the path may be that of the host, and the container's own group is mounted at the top.
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
def memory_limit(device: torch.device, most: float) -> Iterator[None]:
    """Context manager in which allocations beyond a limit fail, so that the machine does not run out of memory.

    The limit that was set before is restored afterwards.

    Args:
        device: Device of the model.
        most: Limit in bytes.

    Raises:
        ValueError: If the operating system can't limit the memory of a process.
    """
    if device.type == "cuda":
        total = torch.cuda.mem_get_info(device)[1]
        fraction = torch.cuda.get_per_process_memory_fraction(device)
        torch.cuda.set_per_process_memory_fraction(min(1.0, most / total), device)
        try:
            yield
        finally:
            torch.cuda.set_per_process_memory_fraction(fraction, device)
        return
    if sys.platform != "linux":
        raise ValueError("mm scale_batch: on a CPU it needs Linux, where a process's memory can be limited")
    import resource

    libc = ctypes.CDLL(None)
    libc.mallopt(M_MMAP_THRESHOLD, 2**16)  # the memory of tensors is returned when they are freed
    libc.malloc_trim(0)
    before = resource.getrlimit(resource.RLIMIT_DATA)
    left = max(0.0, most - proc_bytes("/proc/self/status", "VmRSS"))
    resource.setrlimit(resource.RLIMIT_DATA, (proc_bytes("/proc/self/status", "VmData") + int(left), before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)


def proc_bytes(file: str, name: str) -> int:
    """Return the bytes that a file in /proc lists under a name."""
    (line,) = [line for line in Path(file).read_text(encoding="utf-8").splitlines() if line.startswith(f"{name}:")]
    return int(line.split()[1]) * 1024
