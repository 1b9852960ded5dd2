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
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import yaml

from mm.files import remove_parts, shown, whole, yaml_text

OVERRIDES = "overrides.yaml"
# What a run writes before its first step.
BEGUN = ("config.yaml", OVERRIDES, "rows.safetensors", "csv/version_0/hparams.yaml")
PATIENCE = 5.0  # seconds in which the last processes of an earlier run may still be ending
LOCK = ".lock"  # is in a folder while a run is at work in it, where folders can't be locked themselves
LOCKS: dict[int, Path | None] = {}  # descriptors that hold this process's locks -> the locked file, None for a folder
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
        known = [self.path / name for name in (LOCK, *(BEGUN if begun else (OVERRIDES,)))]
        if any(file not in known for file in files):
            return
        for file in files:  # the lock file as well: the lock itself is held until `release`
            file.unlink()
        with suppress(OSError):  # a file has appeared in one of them by now
            for folder in sorted(self.path.rglob("*"), reverse=True):  # inner ones first
                folder.rmdir()
            if self.created:
                self.path.rmdir()


def claim(path: Path, typed: bool, resumable: bool = False, created: bool = False) -> RunFolder:
    """Claim the folder of a new run.

    Args:
        path: The folder; its parents are created.
        typed: Whether the user has chosen the name. A default name that is taken gets `-1`, `-2`, ... appended.
        resumable: Whether the verb can go on with a run, for the message.
        created: Whether this process has created the folder already.

    Returns:
        The claimed folder, locked. It is new, or was there and empty.

    Raises:
        TakenError: If the folder is another run's, or holds files.
        ValueError: If it can't be created.
    """
    for number in count():
        candidate = path if number == 0 else path.with_name(f"{path.name}-{number}")
        try:
            return take(candidate, resumable, created)
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


def take(path: Path, resumable: bool = False, created: bool = False) -> RunFolder:
    """Create a folder, or take one that is there and empty."""
    while True:
        try:
            path.mkdir(parents=True)
            created = True
        except FileExistsError:
            if (path.is_symlink() and not path.exists()) or (path.exists() and not path.is_dir()):
                raise TakenError(f"the run folder {shown(path)} is a file; choose another run=NAME") from None
        with suppress(FileNotFoundError):  # another process has removed it since: once more
            check_empty(path, resumable)  # before anything is written into a folder that may be the user's
            lock = locked(path)
            try:
                check_empty(path, resumable)
                if lock is None and not created:
                    raise TakenError(
                        f"the run folder {shown(path)} is there already, and this file system has no locks to tell "
                        "whether a run is at work in it; choose another run=NAME, or delete it"
                    )
            except BaseException:
                let_go(lock)
                raise
            return RunFolder(path, created, lock, fresh=True)


def check_empty(path: Path, resumable: bool) -> None:
    """Raise TakenError if a folder holds anything."""
    if any(entry.name != LOCK for entry in path.iterdir()):
        again = "go on with resume=true, " if resumable and (path / OVERRIDES).is_file() else ""
        raise TakenError(f"the run folder {shown(path)} is not empty; choose another run=NAME, {again}or delete it")


def reopen(path: Path, patience: float | None = None) -> RunFolder:
    """Go on in the folder of a run.

    Temporary files that killed processes have left in it are removed.

    Args:
        path: The folder.
        patience: Seconds to wait for another process that works in it; None for those of one that is ending.

    Raises:
        TakenError: If another process works in it.
        ValueError: If there is no run in it.
    """
    if not (path / OVERRIDES).is_file():
        raise ValueError(f"resume=true: there is no run in {shown(path)}; name one with run=NAME")
    deadline = time.monotonic() + (PATIENCE if patience is None else patience)
    while True:
        try:
            folder = RunFolder(path, created=False, lock=locked(path), fresh=False)
            if folder.lock is not None:
                remove_parts(path)  # nobody else writes here
            return folder
        except TakenError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def locked(path: Path) -> int | None:
    """Lock a folder until `let_go`, or the end of this process, however it ends.

    The folder itself is locked. Network file systems lock files only: there a file in it is, until it is let go.

    Returns:
        The descriptor that holds the lock; None where the file system has no locks.

    Raises:
        TakenError: If another process holds the lock.
        FileNotFoundError: If the folder was removed before it was locked.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        if error.errno == errno.EWOULDBLOCK:
            raise at_work(path) from None
        return locked_file(path)
    if not is_named(descriptor, path):
        os.close(descriptor)
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
    LOCKS[descriptor] = None
    return descriptor


def locked_file(path: Path) -> int | None:
    """Lock a file in a folder, by a record lock, which a network file system hands on to its server."""
    file = path / LOCK
    while True:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(descriptor)
            if error.errno in (errno.EACCES, errno.EAGAIN):
                raise at_work(path) from None
            file.unlink(missing_ok=True)
            return None
        if is_named(descriptor, file):
            LOCKS[descriptor] = file
            return descriptor
        os.close(descriptor)  # who held it before has just removed it


def at_work(path: Path) -> TakenError:
    return TakenError(f"a run is at work in {shown(path)}; wait for its end, or choose another run=NAME")


def is_named(descriptor: int, path: Path) -> bool:
    """Whether an open file or folder still has its name."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


def let_go(descriptor: int | None) -> None:
    """Release a lock. A locked file is removed first: who opens it in between sees that it has lost its name."""
    if descriptor is None:
        return
    file = LOCKS.pop(descriptor, None)
    if file is not None and is_named(descriptor, file):
        file.unlink()
    os.close(descriptor)


def forget() -> None:
    """In a forked process, such as a loader's worker: the lock is the parent's, and ends with it."""
    while LOCKS:
        os.close(LOCKS.popitem()[0])


os.register_at_fork(after_in_child=forget)


def write_overrides(path: Path, verb: str, typed: Sequence[str]) -> None:
    """Keep a run's verb, config flags and overrides, for resuming and comparing."""
    text = yaml_text(list(typed))
    with whole(path / OVERRIDES) as part:
        part.write_text(f"# mm {verb}\n{text}", encoding="utf-8")


def read_overrides(path: Path) -> list[str]:
    """The config flags and overrides that a run was started with; none where there is no run."""
    file = path / OVERRIDES
    if not file.is_file():
        return []
    try:
        found = yaml.safe_load(file.read_text(encoding="utf-8")) or []
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ValueError(f"{file}: is no YAML: {error}") from None
    if not isinstance(found, list) or not all(isinstance(word, str) for word in found):
        raise ValueError(f"{file}: got {found!r:.80}, wanted the words of a command")
    return found


def override_key(word: str) -> str:
    """Return the key of an override, such as `task.lr` of `+task.lr=1e-3`; "" of a flag."""
    return "" if word.startswith("-") else word.partition("=")[0].strip().lstrip("+~")
