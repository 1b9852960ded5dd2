"""Run folders: each is claimed by one process, and holds nothing that this process did not find or write.

A new run claims its folder by creating it, so that of two runs with one name one is refused. While a run is at work it
holds a lock on its folder, which the system releases when the process ends, however it ends. A process removes only
what it has created itself.
"""

import errno
import fcntl
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import yaml

from mm.files import shown, whole

OVERRIDES = "overrides.yaml"
# What a run writes before its first step.
BEGUN = ("config.yaml", OVERRIDES, "rows.safetensors", "csv/version_0/hparams.yaml")
PATIENCE = 5.0  # seconds in which the last processes of an earlier run may still be ending
LOCKS: set[int] = set()  # descriptors of the folders that this process has locked
REFUSED = (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOSPC, errno.EDQUOT, errno.ENAMETOOLONG, errno.ENOTDIR)


class TakenError(ValueError):
    """The folder belongs to another run, or holds files."""


@dataclass
class RunFolder:
    """A folder that this process works in.

    Attributes:
        path: The folder.
        created: Whether this process has created it, and so may remove it.
        lock: File descriptor of the locked folder; None where the file system has no locks.
        fresh: Whether the folder was empty when it was claimed.
    """

    path: Path
    created: bool
    lock: int | None
    fresh: bool

    def release(self) -> None:
        """Let other processes work in the folder."""
        let_go(self.lock)
        self.lock = None

    def discard(self, begun: bool = False) -> None:
        """Remove the folder of a run that made nothing but its overrides.yaml, if this process created it.

        Its name is free again then. Folders without a file in them are removed as well. Any other file stays, and the
        folder with it; a folder that held a run when it was claimed stays as it is.

        Args:
            begun: Also remove the files that a run writes before its first step.
        """
        if not self.fresh or not self.path.is_dir():
            return
        files = [path for path in self.path.rglob("*") if not path.is_dir() or path.is_symlink()]
        known = [self.path / name for name in (BEGUN if begun else (OVERRIDES,))]
        if any(file not in known for file in files):
            return
        for file in files:
            file.unlink()
        for folder in sorted((path for path in self.path.rglob("*")), reverse=True):
            folder.rmdir()
        if self.created:
            self.path.rmdir()


def claim(path: Path, typed: bool, resumable: bool = False) -> RunFolder:
    """Claim the folder of a new run.

    Args:
        path: The folder; its parents are created.
        typed: Whether the user has chosen the name. A default name that is taken gets `-1`, `-2`, ... appended.
        resumable: Whether the verb can go on with a run, for the message.

    Returns:
        The claimed folder, locked. It is new, or was there and empty.

    Raises:
        TakenError: If the folder is another run's, or holds files.
        ValueError: If it can't be created.
    """
    for number in count():
        candidate = path if number == 0 else path.with_name(f"{path.name}-{number}")
        try:
            return take(candidate, resumable)
        except TakenError:
            if typed:
                raise
        except OSError as error:
            if error.errno not in REFUSED:
                raise
            raise ValueError(
                f"{shown(candidate)}: {error.strerror}; choose another place with paths.outputs=DIR"
            ) from error
    raise AssertionError("count() does not end")


def take(path: Path, resumable: bool = False) -> RunFolder:
    """Create a folder, or take one that is there and empty."""
    try:
        path.mkdir(parents=True)
        created = True
    except FileExistsError:
        created = False
    if not path.is_dir():
        raise TakenError(f"the run folder {shown(path)} is a file; choose another run=NAME")
    lock = locked(path)
    if not created and any(path.iterdir()):
        let_go(lock)
        again = "go on with resume=true, " if resumable else ""
        raise TakenError(f"the run folder {shown(path)} is not empty; choose another run=NAME, {again}or delete it")
    return RunFolder(path, created, lock, fresh=True)


def reopen(path: Path) -> RunFolder:
    """Go on in the folder of a run.

    Raises:
        TakenError: If another process works in it.
        ValueError: If there is no run in it.
    """
    if not (path / OVERRIDES).is_file():
        raise ValueError(f"resume=true: there is no run in {shown(path)}; name one with run=NAME")
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return RunFolder(path, created=False, lock=locked(path), fresh=False)
        except TakenError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def locked(path: Path) -> int | None:
    """Lock a folder until `let_go`, or the end of this process; None where the file system has no locks.

    Raises:
        TakenError: If another process holds the lock.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        if error.errno == errno.EWOULDBLOCK:
            taken = f"a run is at work in {shown(path)}; wait for its end, or choose another run=NAME"
            raise TakenError(taken) from None
        return None  # network file systems lock no folders
    LOCKS.add(descriptor)
    return descriptor


def let_go(descriptor: int | None) -> None:
    """Release a lock."""
    if descriptor is not None:
        LOCKS.discard(descriptor)
        os.close(descriptor)


def forget() -> None:
    """In a forked process, such as a loader's worker: the lock is the parent's, and ends with it."""
    while LOCKS:
        os.close(LOCKS.pop())


os.register_at_fork(after_in_child=forget)


def write_overrides(path: Path, verb: str, typed: Sequence[str]) -> None:
    """Keep a run's verb, config flags and overrides, for resuming and comparing."""
    text = yaml.safe_dump(list(typed), allow_unicode=True)
    with whole(path / OVERRIDES) as part:
        part.write_text(f"# mm {verb}\n{text}", encoding="utf-8")


def read_overrides(path: Path) -> list[str]:
    """The config flags and overrides that a run was started with; none where there is no run."""
    file = path / OVERRIDES
    return list(yaml.safe_load(file.read_text(encoding="utf-8")) or []) if file.is_file() else []
