"""Which files are looked at to find out what an input's files have in common."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

FEW = 16  # files that are looked at for a trained model, which knows its inputs


def existing(raw: Sequence[str | None], stats: np.ndarray | None) -> list[str]:
    """Return the paths at which there is a file. stats: as in `Modality.probe`."""
    return [p for row, p in enumerate(raw) if p is not None and (stats is None or stats[row, 0] >= 0)]


def choose_files(paths: Sequence[str], trained: bool, limit: int, sample: int) -> list[str]:
    """Return the files that are looked at: FEW for a trained model; else all up to a limit, and a sample of more."""
    return [paths[i] for i in choose(len(paths), *((FEW, FEW) if trained else (limit, sample)))]


def choose(count: int, most: int, sample: int) -> list[int]:
    """Which of some files are looked at.

    Args:
        count: How many there are.
        most: Up to so many, all are.
        sample: Of more, so many, drawn by chance (the same each time), FEW of them at even distances.

    Returns:
        Their numbers, in order.
    """
    even = np.linspace(0, count - 1, FEW).astype(int)
    if count <= most:
        return list(range(count))
    rest = max(0, sample - FEW)
    return sorted({*even.tolist(), *np.random.default_rng(0).choice(count, rest, replace=False).tolist()})


def no_file(source: Path, modality: str, root: Path) -> str:
    """Return the message for an input none of whose files exists."""
    return (
        f"{source}: none of the files that its {modality} column names exists; paths are relative to {root.resolve()}"
    )


def unreadable(source: Path, modality: str, paths: Sequence[str]) -> str:
    """Return the message for an input none of whose files can be read, whatever on_error says."""
    return (
        f"{source}: none of {len(paths)} files of modality {modality} that were tried can be read, such as {paths[0]}; "
        "is this the right column, and are the files whole?"
    )


def looked_at(count: int, total: int) -> str:
    """Return how many of the files were looked at, in words."""
    return f"all {total} looked at" if count == total else f"{count} of {total} looked at"


def file_bytes(path: str) -> bytes:
    """Return the bytes of a file.

    Raises:
        ValueError: If it can't be read.
    """
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ValueError(f"can't read {path}: {error.strerror}") from None
