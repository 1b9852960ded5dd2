"""Run folders, each of which is owned by one process.

A new run claims its folder by creating it, so that one of two runs with the same name is refused. During a run the
process locks its folder; the operating system releases the lock when the process ends in any way. A process removes
only files and folders that it has created itself.
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
# Files that a run writes before its first step.
BEGUN = ("config.yaml", OVERRIDES, "rows.safetensors", "csv/version_0/hparams.yaml")
PATIENCE = 5.0  # seconds to wait for the last processes of an earlier run to end
LOCK = ".lock"  # exists in a folder during a run, if the file system can't lock folders
LOCKS: dict[int, Path | None] = {}  # file descriptor of each lock of this process to the locked file; None: a folder
REFUSED = (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOSPC, errno.EDQUOT, errno.ENAMETOOLONG, errno.ENOTDIR)


class TakenError(ValueError):
    """The folder belongs to another run, or is not empty."""


@dataclass
class RunFolder:
    """A folder that this process has claimed for its run.

    Attributes:
        path: Path of the folder.
        created: Whether this process has created the folder and may therefore remove it.
        lock: File descriptor of the lock; None if the file system does not support locks.
        fresh: Whether the folder was empty when it was claimed.
    """

    path: Path
    created: bool
    lock: int | None
    fresh: bool

    def release(self) -> None:
        """Release the lock, so that other processes can use the folder."""
        let_go(self.lock)
        self.lock = None

    def discard(self, begun: bool = False) -> None:
        """Remove the folder if this process created it and the run wrote nothing but its overrides.yaml.

        Its name can then be used again. Empty subfolders are removed too. If there is any other file, the folder and
        the file stay. A folder that contained a run when it was claimed stays unchanged.

        Args:
            begun: Whether to also remove the files that a run writes before its first step.
        """
        if not self.fresh or not self.path.is_dir():
            return
        files = [path for path in self.path.rglob("*") if not path.is_dir() or path.is_symlink()]
        known = [self.path / name for name in (LOCK, *(BEGUN if begun else (OVERRIDES,)))]
        if any(file not in known for file in files):
            return
        for file in files:  # including the lock file; the lock itself is held until `release`
            file.unlink()
        with suppress(OSError):  # a folder may have received a file by now
            for folder in sorted(self.path.rglob("*"), reverse=True):  # inner ones first
                folder.rmdir()
            if self.created:
                self.path.rmdir()


def claim(path: Path, typed: bool, resumable: bool = False, created: bool = False) -> RunFolder:
    """Claim the folder of a new run.

    Args:
        path: Path of the folder; its parents are created.
        typed: Whether the user has chosen the name. If a default name is taken, `-1`, `-2`, ... is appended.
        resumable: Whether the verb can resume a run, for the error message.
        created: Whether this process has already created the folder.

    Returns:
        The claimed and locked folder, which is new or was empty.

    Raises:
        TakenError: If the folder belongs to another run, or is not empty.
        ValueError: If the folder can't be created.
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
    """Create and lock a folder, or lock an existing one if it is empty.

    Raises:
        TakenError: If the folder belongs to another run, or is not empty.
    """
    while True:
        try:
            path.mkdir(parents=True)
            created = True
        except FileExistsError:
            if (path.is_symlink() and not path.exists()) or (path.exists() and not path.is_dir()):
                raise TakenError(f"the run folder {shown(path)} is a file; choose another run=NAME") from None
        with suppress(FileNotFoundError):  # another process has just removed it: try again
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
    """Raise TakenError if a folder is not empty.

    Args:
        path: Path of the folder.
        resumable: Whether the verb can resume a run, for the error message.
    """
    if any(entry.name != LOCK for entry in path.iterdir()):
        again = "go on with resume=true, " if resumable and (path / OVERRIDES).is_file() else ""
        raise TakenError(f"the run folder {shown(path)} is not empty; choose another run=NAME, {again}or delete it")


def reopen(path: Path, patience: float | None = None) -> RunFolder:
    """Lock the folder of an existing run to resume it, and remove the temporary files of killed processes from it.

    Args:
        path: Path of the folder.
        patience: Number of seconds to wait for another process that uses the folder; None: `PATIENCE`.

    Returns:
        The locked folder.

    Raises:
        TakenError: If another process uses the folder.
        ValueError: If the folder contains no run.
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
    """Lock a folder until `let_go`, or until this process ends in any way.

    The folder itself is locked. On network file systems, which can lock files only, a file in it is created and locked.

    Returns:
        The file descriptor of the lock; None if the file system does not support locks.

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
    """Lock a file in a folder by a POSIX record lock, which network file systems pass on to their server.

    Returns:
        The file descriptor of the lock; None if the file system does not support locks.

    Raises:
        TakenError: If another process holds the lock.
    """
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
        os.close(descriptor)  # the previous holder has just removed the file


def at_work(path: Path) -> TakenError:
    return TakenError(f"a run is at work in {shown(path)}; wait for its end, or choose another run=NAME")


def is_named(descriptor: int, path: Path) -> bool:
    """Return whether a path still refers to an open file or folder."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


def let_go(descriptor: int | None) -> None:
    """Release a lock. A lock file is removed first; a process that has just opened it then sees that it was removed.

    Args:
        descriptor: File descriptor of the lock, or None.
    """
    if descriptor is None:
        return
    file = LOCKS.pop(descriptor, None)
    if file is not None and is_named(descriptor, file):
        file.unlink()
    os.close(descriptor)


def forget() -> None:
    """Close the file descriptors of all locks in a forked process, such as a data loader's worker.

    The locks belong to the parent process and end with it.
    """
    while LOCKS:
        os.close(LOCKS.popitem()[0])


os.register_at_fork(after_in_child=forget)


def write_overrides(path: Path, verb: str, typed: Sequence[str]) -> None:
    """Write the verb, config flags and overrides of a run into its folder, for resuming and comparing.

    Args:
        path: Path of the run folder.
        verb: The verb, such as "train".
        typed: The config flags and overrides, as typed.
    """
    text = yaml_text(list(typed))
    with whole(path / OVERRIDES) as part:
        part.write_text(f"# mm {verb}\n{text}", encoding="utf-8")


def read_overrides(path: Path) -> list[str]:
    """Return the config flags and overrides that a run was started with; an empty list if the folder contains no run.

    Raises:
        ValueError: If the file is malformed.
    """
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
    """Return the key of an override, such as `task.lr` of `+task.lr=1e-3`; "" for a flag."""
    return "" if word.startswith("-") else word.partition("=")[0].strip().lstrip("+~")
