"""Atomic writing of files and folders: they are written under a temporary name and then renamed."""

import errno
import glob
import json
import math
import os
import re
import secrets
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import yaml

PART = re.compile(r"\.(?P<machine>[A-Za-z0-9]*)-(?P<process>\d+)-[0-9a-f]{8}\.part$")
WEEK = 7 * 24 * 3600.0  # seconds
# Error numbers of the operating system if a file can't be written through no fault of the program.
REFUSALS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENAMETOOLONG)
REFUSALS += (errno.ENOTDIR, errno.ELOOP, errno.EIO, errno.ESTALE, errno.EMFILE, errno.ENFILE)
FULL = (errno.ENOSPC, errno.EDQUOT)
NAMELESS = (*FULL, errno.EROFS, errno.EIO, errno.EMFILE, errno.ENFILE)  # raised for files only
# The same errors in libraries whose exceptions have no number: torch, safetensors, NumPy, FAISS.
WORDS = {
    errno.ENOSPC: r"No space left|unexpected pos \d+ vs|writing file|file write failed|requested and \d+ written",
    errno.EDQUOT: "Disk quota exceeded",
    errno.EROFS: "Read-only file system",
    errno.EACCES: "Permission denied",
    errno.ENAMETOOLONG: "File name too long",
}
SHARED_MEMORY = re.compile(
    "unable to (write to|open|allocate|mmap).*(file </|shared memory)|out of shared memory", re.S
)
AT_WORK: set[str] = set()  # names of the temporary files and folders that this process is writing


class Quoting(yaml.SafeDumper):
    """YAML dumper that quotes texts with Unicode line separators, which YAML would otherwise load as blanks."""

    def represent_str(self, data: str) -> yaml.ScalarNode:
        return self.represent_scalar("tag:yaml.org,2002:str", data, style='"' if SEPARATORS.search(data) else None)


Quoting.add_representer(str, Quoting.represent_str)
SEPARATORS = re.compile(r"[\x85\u2028\u2029\ufeff]")


def yaml_text(data: Any) -> str:
    """Write plain data as YAML, such that `yaml.safe_load` returns every text unchanged."""
    return yaml.dump(data, Dumper=Quoting, sort_keys=False, allow_unicode=True)


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Context manager that yields a temporary path for writing a file or folder and then renames it to `path`.

    The new file or folder replaces an existing one. If an error is raised, the temporary one is removed. Several
    processes, even on several machines, may write the same path at the same time: each has its own temporary path, and
    the last to finish wins. If `path` is a symbolic link, the file that it points to is replaced. Temporary files of
    killed processes are removed, see `unused`.

    Args:
        path: The final path.
    """
    path = path.resolve()
    part = unused(path)
    AT_WORK.add(part.name)
    try:
        yield part
        put(part, path)
    except BaseException:
        discard(part)
        raise
    finally:
        AT_WORK.discard(part.name)


def unused(path: Path) -> Path:
    """Return a temporary path next to a file or folder that no process has used before.

    It has the form NAME.MACHINE-PID-RANDOM.part, so that the temporary files of killed processes can be distinguished
    from those in use. Those of killed processes of this machine are removed here, those of other machines after a week.
    """
    stem = os.fsencode(path.name)[:150].decode(errors="ignore")  # most file systems allow 255 bytes
    for left in path.parent.glob(f"{glob.escape(stem)}.*.part"):
        if (found := PART.search(left.name)) is None or left.name in AT_WORK:
            continue
        with suppress(OSError):  # another process may have just removed it
            here = found["machine"] == machine()
            if (here and not alive(int(found["process"]))) or time.time() - left.stat().st_mtime > WEEK:
                discard(left)
    return path.with_name(f"{stem}.{machine()}-{os.getpid()}-{secrets.token_hex(4)}.part")


def remove_parts(folder: Path) -> None:
    """Remove the temporary files of killed processes anywhere below a folder to which no other process writes."""
    for left in folder.rglob("*.part"):
        if PART.search(left.name) and left.name not in AT_WORK:
            with suppress(OSError):
                discard(left)


def machine() -> str:
    """Return a name of this machine or container.

    Processes with different names can't check whether the other process is alive.
    """
    host = re.sub(r"[^A-Za-z0-9]", "", socket.gethostname())[:20]
    try:
        space = os.stat("/proc/self/ns/pid").st_ino  # containers may share the host's name, but not its process IDs
    except OSError:
        return host
    return f"{host}n{space}"


def alive(process: int) -> bool:
    """Return whether another process of this machine is running. The result is False for this process itself."""
    if process == os.getpid():
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # a process of another user
        return True
    return True


def put(part: Path, path: Path) -> None:
    """Rename a file or folder to a path that may exist. If an error is raised, both are unchanged.

    Args:
        part: The file or folder.
        path: The new path; if it exists, it has to be of the same kind.
    """
    if not (part.is_dir() and path.is_dir()):
        os.replace(part, path)
        return
    old = Path(tempfile.mkdtemp(prefix=f"{path.name}.", dir=path.parent))  # non-empty folders can't be replaced
    try:
        os.replace(path, old)
        os.replace(part, path)
        sync(path.parent)
    finally:
        if path.exists():
            shutil.rmtree(old, ignore_errors=True)  # the new folder is in place
        else:
            os.replace(old, path)


def discard(path: Path) -> None:
    """Remove a file or folder if it exists."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def shown(path: Path) -> str:
    """Return a path for messages, relative to the current folder if it lies in it."""
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)


def sync(path: Path) -> None:
    """Flush the content of a file, or the entries of a folder, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    os.fsync(handle)
    os.close(handle)


def refusal(error: BaseException, path: Path | None = None) -> OSError | None:
    """Return the OSError with which the operating system refused to write, if it is the cause of an error.

    Args:
        error: The error. The errors that it was raised from are searched too: if a disk is full, torch raises a
            RuntimeError while it handles the OSError.
        path: The path that was written, if the error does not name it.

    Returns:
        An OSError with a number and, if known, the name of the file; None if the error has another cause.
    """
    seen: set[int] = set()
    one: BaseException | None = None if isinstance(error, ValueError | AssertionError) else error
    while one is not None and id(one) not in seen:
        seen.add(id(one))
        if (number := refused(one)) is not None:
            given = one.filename if isinstance(one, OSError) else None
            name = os.fsdecode(given) if isinstance(given, str | bytes) else None
            if name is None and number in NAMELESS and path is not None:
                name = str(path)
            if name is not None or number in NAMELESS:
                return OSError(number, os.strerror(number), *([PART.sub("", name)] if name is not None else []))
        one = one.__cause__ or (None if one.__suppress_context__ else one.__context__)
    return None


def refused(error: BaseException) -> int | None:
    """Return the error number of a refusal to write, from the number or the text of an error; None for other errors."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno if error.errno in REFUSALS else None
    if not isinstance(error, OSError | RuntimeError) and type(error).__name__ != "SafetensorError":
        return None
    if SHARED_MEMORY.search(str(error)):
        return None
    return next((number for number, words in WORDS.items() if re.search(words, str(error))), None)


def free_bytes(path: Path) -> int:
    """Return the free bytes of the file system of a path, which need not exist yet."""
    path = path.absolute()
    while not path.exists() and path != path.parent:
        path = path.parent
    return shutil.disk_usage(path).free


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Write a mapping as a JSON file, atomically. Numbers that are not finite become null.

    Args:
        path: Path of the file.
        data: Name to value.
    """
    # JSON has no NaN
    finite = {name: None if isinstance(x, float) and not math.isfinite(x) else x for name, x in data.items()}
    with whole(path) as part:
        part.write_text(json.dumps(finite, indent=1, allow_nan=False), encoding="utf-8")
