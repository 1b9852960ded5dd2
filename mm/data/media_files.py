"""The media files that the cells of a table name: their paths, and their facts in the file system."""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from stat import S_ISDIR, S_ISREG
from typing import Any

import numpy as np

from mm.data.table import Fault
from mm.messages import listing

NO_FILE, FOLDER = -1, -2  # instead of a size
STATS = 3  # number of values per file: its size and two times
WINDOWS = re.compile(r"[A-Za-z]:[\\/]|.*\\")


def stat_files(paths: Sequence[str | None]) -> np.ndarray:
    """Query the file system once for each file.

    Args:
        paths: Path of each row's file; None: there is no file.

    Returns:
        Size in bytes, time of the last change of the content, and time of the last change of any kind, in nanoseconds,
        (N, 3) int64. The size is NO_FILE or FOLDER if there is no regular file.
    """
    found = np.full((len(paths), STATS), NO_FILE, dtype=np.int64)
    for row, path in enumerate(paths):
        if path is None:
            continue
        try:
            about = os.stat(path)
        except (OSError, ValueError):  # ValueError: a null byte, or a character that no file name has
            continue
        if S_ISREG(about.st_mode):
            found[row] = about.st_size, about.st_mtime_ns, about.st_ctime_ns
        elif S_ISDIR(about.st_mode):
            found[row, 0] = FOLDER
    return found


def file_faults(
    paths: Sequence[str | None], stats: np.ndarray, cells: Sequence[Any], column: str, root: Path
) -> list[Fault]:
    """Return an error for every row whose file is missing, empty or a folder, so that they are found before training.

    Args:
        paths: Path of each row's file; None: there is no file.
        stats: Result of `stat_files`.
        cells: Cells of the column.
        column: Name of the column.
        root: Folder to which the paths are relative.

    Returns:
        One error for each such row. That of the first missing file states how many are missing.
    """
    faults, missing = [], []
    sizes = stats[:, 0].tolist()
    for row, (path, size) in enumerate(zip(paths, sizes, strict=True)):
        if path is None or size > 0:
            continue
        cell = cells[row]
        if not isinstance(cell, str):
            faults.append(Fault(row, column, f"got {type(cell).__name__}, wanted the path of a file as text"))
        elif size == NO_FILE:
            missing.append(Fault(row, column, f"no file {listing([path], longest=300)}{remote_hint(cell, root)}"))
        elif size == FOLDER:
            faults.append(Fault(row, column, f"{listing([path], longest=300)} is a folder, wanted a file"))
        else:
            faults.append(Fault(row, column, f"the file {listing([path], longest=300)} is empty (0 bytes)"))
    if len(missing) > 1:
        named = sum(path is not None for path in paths)
        first = missing[0]
        more = f"{first.message} (the first of {len(missing)} missing files of {named} that '{column}' names)"
        missing[0] = first._replace(message=more)
    return faults + missing


def remote_hint(cell: str, root: Path) -> str:
    """Return a remedy for a path without a file, if the form of the path suggests one; otherwise ""."""
    scheme = cell.split("://", 1)[0] if "://" in cell else ""
    relative = f"paths are relative to {root.resolve()}"
    if scheme == "file":
        return f"; file:// is not understood: write the path alone, /folder/file; {relative}"
    if scheme:
        return (
            f"; files of {scheme}:// are not read: copy them to this machine and name their paths there, or store them "
            "with mm shard, whose folder datamodule=shards reads by URL"
        )
    if cell.startswith("~"):
        return f"; '~' is not expanded, as it differs from user to user: write the whole path; {relative}"
    if os.sep == "/" and WINDOWS.match(cell):
        return f"; this looks like a path of Windows: write it with / and without a drive; {relative}"
    return ""
