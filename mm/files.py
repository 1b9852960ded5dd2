"""Files and folders that are whole or not there: written beside their name, then renamed."""

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
# What a system answers where a file can't be written, through no fault of the program.
REFUSALS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENAMETOOLONG)
REFUSALS += (errno.ENOTDIR, errno.ELOOP, errno.EIO, errno.ESTALE, errno.EMFILE, errno.ENFILE)
FULL = (errno.ENOSPC, errno.EDQUOT)
NAMELESS = (*FULL, errno.EROFS, errno.EIO, errno.EMFILE, errno.ENFILE)  # come from files only, named or not
# The same in the words of libraries whose errors have no number: torch, safetensors, NumPy, FAISS.
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
AT_WORK: set[str] = set()  # names of the temporary files and folders that this process writes now


class Quoting(yaml.SafeDumper):
    """Writes texts with line separators of Unicode in double quotes; YAML would read others as blanks."""

    def represent_str(self, data: str) -> yaml.ScalarNode:
        return self.represent_scalar("tag:yaml.org,2002:str", data, style='"' if SEPARATORS.search(data) else None)


Quoting.add_representer(str, Quoting.represent_str)
SEPARATORS = re.compile(r"[\x85\u2028\u2029\ufeff]")


def yaml_text(data: Any) -> str:
    """Write plain data as YAML, from which `yaml.safe_load` reads every text as it was."""
    return yaml.dump(data, Dumper=Quoting, sort_keys=False, allow_unicode=True)


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Where to write a file or a folder, which then gets its name and replaces what has it; on an error it is gone.

    Several processes, also of several machines, may write it at once: each has a name of its own to write to, and the
    last to finish wins. What a link leads to is replaced, not the link. What killed processes of this machine have left
    is removed.
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
    """A name beside a file or folder that no other process uses, this one's earlier ones neither.

    Names are NAME.MACHINE-PID-RANDOM.part, so that what a killed process has left can be told from what is at work, and
    is removed here; what other machines have left, after a week.
    """
    stem = os.fsencode(path.name)[:150].decode(errors="ignore")  # most file systems allow 255 bytes
    for left in path.parent.glob(f"{glob.escape(stem)}.*.part"):
        if (found := PART.search(left.name)) is None or left.name in AT_WORK:
            continue
        with suppress(OSError):  # another process has just removed it as well
            here = found["machine"] == machine()
            if (here and not alive(int(found["process"]))) or time.time() - left.stat().st_mtime > WEEK:
                discard(left)
    return path.with_name(f"{stem}.{machine()}-{os.getpid()}-{secrets.token_hex(4)}.part")


def remove_parts(folder: Path) -> None:
    """Remove what killed processes have left anywhere below a folder in which no other process writes now."""
    for left in folder.rglob("*.part"):
        if PART.search(left.name) and left.name not in AT_WORK:
            with suppress(OSError):
                discard(left)


def machine() -> str:
    """A name of this machine, or container: processes with different names can't ask whether the other is alive."""
    host = re.sub(r"[^A-Za-z0-9]", "", socket.gethostname())[:20]
    try:
        space = os.stat("/proc/self/ns/pid").st_ino  # containers may share the host's name, but not its process ids
    except OSError:
        return host
    return f"{host}n{space}"


def alive(process: int) -> bool:
    """Whether another process of this machine is there: this one's files are known."""
    if process == os.getpid():
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        return True
    return True


def put(part: Path, path: Path) -> None:
    """Rename a file or a folder to a name that another of its kind may have. On an error both are as they were."""
    if not (part.is_dir() and path.is_dir()):
        os.replace(part, path)
        return
    old = Path(tempfile.mkdtemp(prefix=f"{path.name}.", dir=path.parent))  # folders that hold something are in the way
    try:
        os.replace(path, old)
        os.replace(part, path)
        sync(path.parent)
    finally:
        if path.exists():
            shutil.rmtree(old, ignore_errors=True)  # what is wanted is there
        else:
            os.replace(old, path)


def discard(path: Path) -> None:
    """Remove a file or a folder, where there is one."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def shown(path: Path) -> str:
    """A path as short as it can be typed."""
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)


def sync(path: Path) -> None:
    """Let a file's contents, or a folder's names, be on the disk."""
    handle = os.open(path, os.O_RDONLY)
    os.fsync(handle)
    os.close(handle)


def refusal(error: BaseException, path: Path | None = None) -> OSError | None:
    """What the operating system has refused, where that is what an error comes from.

    Args:
        error: The error. Those that it was raised from are looked at as well: a full disk is an OSError for Python, in
            whose handling torch fails with a RuntimeError.
        path: What was written, where the error does not name it.

    Returns:
        An OSError with a number and, where it is known, the name of the file; None where it is another error.
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
    """The number of a refusal of the system, by an error's own number or words; None where it is another error."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno if error.errno in REFUSALS else None
    if not isinstance(error, OSError | RuntimeError) and type(error).__name__ != "SafetensorError":
        return None
    if SHARED_MEMORY.search(str(error)):
        return None
    return next((number for number, words in WORDS.items() if re.search(words, str(error))), None)


def free_bytes(path: Path) -> int:
    """Free bytes of the file system that a path, which may not be there yet, lies on."""
    path = path.absolute()
    while not path.exists() and path != path.parent:
        path = path.parent
    return shutil.disk_usage(path).free


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Write a file that is whole or not there. A number that is not finite becomes null."""
    # JSON has no NaN
    finite = {name: None if isinstance(x, float) and not math.isfinite(x) else x for name, x in data.items()}
    with whole(path) as part:
        part.write_text(json.dumps(finite, indent=1, allow_nan=False), encoding="utf-8")
