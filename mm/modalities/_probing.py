"""Selection of the files that are inspected to find the common properties of an input, such as its sample rate."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

FEW = 16  # number of files that are inspected for a trained model, which knows the properties of its inputs


def existing(raw: Sequence[str | None], stats: np.ndarray | None) -> list[str]:
    """Return the paths of the files that exist.

    Args:
        raw: Path of each row; None: the input is absent.
        stats: File sizes, as in `Modality.probe`; None: all files exist.
    """
    return [p for row, p in enumerate(raw) if p is not None and (stats is None or stats[row, 0] >= 0)]


def choose_files(paths: Sequence[str], trained: bool, limit: int, sample: int) -> list[str]:
    """Return the files to inspect.

    Args:
        paths: Paths of all files.
        trained: Whether the files are for a trained model, for which FEW files are enough.
        limit: Largest number of files for which all files are inspected.
        sample: Number of files to inspect if there are more than `limit`.
    """
    return [paths[i] for i in choose(len(paths), *((FEW, FEW) if trained else (limit, sample)))]


def choose(count: int, most: int, sample: int) -> list[int]:
    """Return the sorted indices of the files to inspect.

    Args:
        count: Number of files.
        most: Largest number of files for which all files are inspected.
        sample: Number of files to inspect if there are more than `most`. FEW of them are evenly spaced, the others are
            drawn at random with a fixed seed.
    """
    even = np.linspace(0, count - 1, FEW).astype(int)
    if count <= most:
        return list(range(count))
    rest = max(0, sample - FEW)
    return sorted({*even.tolist(), *np.random.default_rng(0).choice(count, rest, replace=False).tolist()})


def no_file(source: Path, modality: str, root: Path) -> str:
    """Return the error message for an input of which no file exists."""
    return (
        f"{source}: none of the files that its {modality} column names exists; paths are relative to {root.resolve()}"
    )


def unreadable(source: Path, modality: str, paths: Sequence[str]) -> str:
    """Return the error message for an input of which no inspected file can be read.

    The error is raised for every setting of `datamodule.on_error`.
    """
    return (
        f"{source}: none of {len(paths)} files of modality {modality} that were tried can be read, such as {paths[0]}; "
        "is this the right column, and are the files whole?"
    )


def looked_at(count: int, total: int) -> str:
    """Return a phrase with the number of files that were inspected, for messages."""
    return f"all {total} looked at" if count == total else f"{count} of {total} looked at"


def file_bytes(path: str) -> bytes:
    """Return the bytes of a file.

    Raises:
        ValueError: If the file can't be read.
    """
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ValueError(f"can't read {path}: {error.strerror}") from None
