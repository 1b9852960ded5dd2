"""Files and folders that are whole or not there: written beside their name, then renamed."""

import glob
import os
import re
import secrets
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Where to write a file or a folder, which then gets its name and replaces what has it; on an error it is gone.

    Several processes, also of several machines, may write it at once: each has a name of its own to write to, and the
    last to finish wins. What a link leads to is replaced, not the link. What killed processes of this machine have left
    is removed.
    """
    path = path.resolve()
    part = unused(path)
    try:
        yield part
    except BaseException:
        discard(part)
        raise
    put(part, path)


def unused(path: Path) -> Path:
    """A name beside a file or folder that no other process uses, this one's earlier ones neither.

    Names are NAME.HOST-PID-RANDOM.part, so that what a killed process has left can be told from what is at work.
    """
    host = re.sub(r"[^A-Za-z0-9]", "", socket.gethostname())[:20]
    stem = path.name[:180]  # most file systems allow 255 bytes
    for left in path.parent.glob(f"{glob.escape(stem)}.{host}-*.part"):
        owner = left.name.removesuffix(".part").rpartition(".")[2].split("-")[1]
        if owner.isdigit() and int(owner) != os.getpid() and not alive(int(owner)):
            with suppress(FileNotFoundError):  # another process has just removed it as well
                discard(left)
    return path.with_name(f"{stem}.{host}-{os.getpid()}-{secrets.token_hex(4)}.part")


def alive(process: int) -> bool:
    """Whether a process of this machine is there."""
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
