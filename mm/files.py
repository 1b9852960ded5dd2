"""Files and folders that are whole or not there: written beside their name, then renamed."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole(path: Path, shared: bool = False) -> Iterator[Path]:
    """Where to write a file or a folder, which then gets its name and replaces what has it; on an error it is gone.

    shared: several processes may write it at once.
    """
    part = path.with_name(f"{path.name}.{os.getpid()}.part" if shared else f"{path.name}.part")
    discard(part)  # of a process that was killed
    try:
        yield part
        put(part, path)
    except BaseException:
        discard(part)
        raise


def put(part: Path, path: Path) -> None:
    """Rename a file or a folder to a name that another may have."""
    if not path.is_dir():
        os.replace(part, path)
        return
    old = path.with_name(f"{path.name}.old")  # a folder can't be renamed to one that holds something
    discard(old)
    os.replace(path, old)
    os.replace(part, path)
    discard(old)


def discard(path: Path) -> None:
    """Remove a file or a folder, where there is one."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
