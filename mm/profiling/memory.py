"""How much memory this process may use, and a limit on it."""

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

M_MMAP_THRESHOLD = -3  # of glibc's malloc.h
UNLIMITED = 2**60  # bytes; what version 1 of control groups shows where there is no limit is near 2**63


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an allocator, or a library that asked one, has refused."""
    message = str(error).lower()
    # oneDNN says no more than that it could not create a primitive
    signs = (
        "can't allocate memory",
        "bad_alloc",
        "out of memory",
        "could not create a",
        "could not execute a primitive",
    )
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(sign in message for sign in signs)


def available_memory(device: torch.device, limit_gib: float | None = None, headroom: float = 0.0) -> float:
    """Return the bytes that may be used in all: on CUDA of the device, else by the process.

    Args:
        device: Where a model is trained.
        limit_gib: A limit in GiB; None for what is free now.
        headroom: Part of what is free that is left free.
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
def memory_limit(device: torch.device, most: float) -> Iterator[None]:
    """Let an allocation beyond so many bytes fail, instead of the machine running out.

    Raises:
        ValueError: If the system can't limit a process.
    """
    if device.type == "cuda":
        whole = torch.cuda.mem_get_info(device)[1]
        torch.cuda.set_per_process_memory_fraction(min(1.0, most / whole), device)
        yield
        return
    if sys.platform != "linux":
        raise ValueError("mm scale_batch: on a CPU it needs Linux, where a process's memory can be limited")
    import resource

    libc = ctypes.CDLL(None)
    libc.mallopt(M_MMAP_THRESHOLD, 2**16)  # so that the memory of tensors is given back as soon as they are freed
    libc.malloc_trim(0)
    before = resource.getrlimit(resource.RLIMIT_DATA)
    left = max(0.0, most - proc_bytes("/proc/self/status", "VmRSS"))
    resource.setrlimit(resource.RLIMIT_DATA, (proc_bytes("/proc/self/status", "VmData") + int(left), before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)


def proc_bytes(file: str, name: str) -> int:
    """Return the bytes that a file of /proc states under a name."""
    (line,) = [line for line in Path(file).read_text(encoding="utf-8").splitlines() if line.startswith(f"{name}:")]
    return int(line.split()[1]) * 1024
