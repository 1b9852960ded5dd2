"""Files and folders that are whole or not there: written beside their name, then renamed."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole(path: Path, shared: bool = False) -> Iterator[Path]:
    """Where to write a file or a folder, which then gets its name and replaces what has it; on an error it is gone.

    What a link leads to is replaced, not the link. shared: several processes may write it at once.
    """
    path = path.resolve()
    part = path.with_name(f"{path.name}.{os.getpid()}.part" if shared else f"{path.name}.part")
    discard(part)  # of a process that was killed
    try:
        yield part
    except BaseException:
        discard(part)
        raise
    put(part, path)


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


def sync(path: Path) -> None:
    """Let a file's contents, or a folder's names, be on the disk."""
    handle = os.open(path, os.O_RDONLY)
    os.fsync(handle)
    os.close(handle)
