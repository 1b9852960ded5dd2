"""Digests of rows, which show whether data has changed and whether rows were used in training."""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import pyarrow
import torch
import xxhash
from torch import Tensor

from mm.batching import is_absent
from mm.data.media_files import NO_FILE, stat_files
from mm.data.table import SPLITS, Table
from mm.fingerprints import (
    Fingerprint,
    Identified,
    cell_bytes,
    combine,
    differences,
    from_tensors,
    scramble,
    seen_in_training,
)
from mm.modalities import get_modality

__all__ = ["Fingerprint", "column", "differences", "file_key", "fingerprint", "from_tensors", "seen_in_training"]
CHUNK = 65_536  # number of cells of an Arrow column that exist as Python objects at a time
WORDS = 64  # rows of an array of up to so many 8-byte words are digested by NumPy, longer ones one after the other


@runtime_checkable
class Digested(Protocol):
    """Raw values of an input whose digests are known without reading them, such as those in shards."""

    def digests(self) -> np.ndarray:
        """Return the digest of each row, (N,) uint64; 0 if the input is absent."""
        ...


def fingerprint(table: Table) -> Fingerprint:
    """Compute the fingerprint of a table from its IDs, the cells of its inputs and targets, and its splits.

    Images and sounds in files are identified by their path, relative to the table's folders, and by their size in
    bytes, because their contents would have to be read. A folder that was moved or copied is therefore the same data,
    and a replaced file of the same name and size is not noticed. Shards give the same digests. Texts, arrays and tables
    are identified by their contents.

    Args:
        table: The table with all rows.

    Returns:
        The digests of the rows of each split that has rows.
    """
    count = len(table.ids)
    inputs = {name: input_digests(name, table) for name in sorted(table.inputs)}
    rows = combine(inputs) + scramble(column(table.ids), "id")
    for name in sorted(table.targets):
        rows += scramble(target(name, table), f"target {name}")
    assert len(rows) == count
    places = {split: np.flatnonzero(table.split == split) for split in SPLITS}
    own = {split: where for split, where in places.items() if len(where)}
    return Fingerprint(
        {split: signed(rows[where]) for split, where in own.items()},
        {split: {name: signed(x[where]) for name, x in inputs.items()} for split, where in own.items()},
    )


def signed(x: np.ndarray) -> Tensor:
    """Reinterpret uint64, which PyTorch hardly supports, as int64 with the same bits."""
    return torch.from_numpy(x.view(np.int64))


def input_digests(name: str, table: Table) -> np.ndarray:
    """Return the digests of one input, (N,) uint64."""
    raw = table.inputs[name]
    if isinstance(raw, Digested):
        return raw.digests()
    if isinstance(raw, Identified):  # the identity of the whole input, and the place of each row
        base = xxhash.xxh3_64_intdigest(raw.identity.encode())
        return np.arange(len(table.ids), dtype=np.uint64) * np.uint64(0xD6E8FEB86659FD93) + np.uint64(base)
    about = table.spec.inputs.get(name)
    if about is None or not get_modality(about.modality).in_files:
        return column(raw)
    return column(file_keys(raw, table, table.files.get(name)))


def file_keys(raw: Sequence[Any], table: Table, stats: np.ndarray | None) -> list[Any]:
    """Replace the paths of images and sounds by keys that identify their files.

    Args:
        raw: Raw inputs, in which a text is a path.
        table: The table of the inputs.
        stats: File statistics from `stat_files`, if they are known.
    """
    folders = {str(folder) for one in table.folders for folder in (Path(one), Path(one).resolve())}
    prefixes = tuple(sorted((f"{folder}/" for folder in folders - {".", "/"}), key=len, reverse=True))
    if stats is None:
        stats = stat_files([x if isinstance(x, str) else None for x in raw])
    return [
        file_key(next((x.removeprefix(p) for p in prefixes if x.startswith(p)), x), max(size, NO_FILE))
        if isinstance(x, str) and x
        else x
        for x, size in zip(raw, stats[:, 0].tolist(), strict=True)
    ]


def file_key(path: str, size: int) -> bytes:
    """Return a key that identifies a file: its path, relative to the table's folders, and its size in bytes."""
    return f"{os.path.normpath(path)}\0{size}".encode("utf-8", "surrogatepass")


def column(cells: Any) -> np.ndarray:
    """Return the digests of the cells of a column.

    Args:
        cells: Any sequence, a tensor, or an Arrow array. Bytes are the key of a cell.

    Returns:
        Digests, (N,) uint64; 0 if a cell is absent.
    """
    if isinstance(cells, np.ndarray | Tensor) and np.asarray(cells).dtype != object:
        return numbers(np.asarray(cells))
    if isinstance(cells, pyarrow.Array | pyarrow.ChunkedArray):
        arrow: Any = cells
        parts = [arrow.slice(begin, CHUNK) for begin in range(0, len(arrow), CHUNK)]
        cells = (x for part in parts for x in part.to_pylist())
    digest = xxhash.xxh3_64_intdigest
    found = [
        0
        if is_absent(cell)
        else digest(cell.encode("utf-8", "surrogatepass"))
        if isinstance(cell, str)
        else digest(cell if isinstance(cell, bytes) else cell_bytes(cell))
        for cell in cells
    ]
    return np.array(found, dtype=np.uint64)


def numbers(x: np.ndarray) -> np.ndarray:
    """Return the digests of the rows of an array, (N, ...), as (N,) uint64."""
    kind = f"{x.dtype}{x.shape[1:]}"
    flat = np.ascontiguousarray(x).reshape(len(x), int(np.prod(x.shape[1:])))
    if flat.shape[1] * flat.itemsize > 8 * WORDS:
        return np.array([xxhash.xxh3_64_intdigest(row.tobytes()) for row in flat], dtype=np.uint64)
    data = flat.view(np.uint8).reshape(len(x), flat.shape[1] * flat.itemsize)
    words = np.zeros((len(x), -(-data.shape[1] // 8) * 8), dtype=np.uint8)
    words[:, : data.shape[1]] = data
    seed = np.uint64(xxhash.xxh3_64_intdigest(kind.encode()))
    found = np.full(len(x), seed, dtype=np.uint64)
    for word in words.view(np.uint64).T:
        found = scramble(found ^ word, "word")
    return found


def target(name: str, table: Table) -> np.ndarray:
    """Return a digest for each value of a target, (N,) uint64. Classes are hashed by name, not by index."""
    values, about = table.targets[name], table.spec.targets[name]
    if about.kind == "class" and isinstance(values, Tensor):
        classes = column([*about.classes, None])
        return classes[np.where(values.numpy() < 0, len(about.classes), values.numpy())]
    return column(table.written.get(name, values))


def identities(raw: Sequence[Any], files: bool, stats: np.ndarray | None = None) -> Iterator[bytes]:
    """Yield for each raw input some bytes that identify it: of a file its path, size and times, otherwise its content.

    Args:
        raw: The raw inputs.
        files: Whether a text is the path of a file. The time of the last change of a file (ctime) is included, because
            copies may keep the modification time (mtime).
        stats: File statistics as in `Table.files`, if they are known.
    """
    if isinstance(raw, Identified):
        yield raw.identity.encode()
        return
    for row, x in enumerate(raw):
        told = cell_bytes(x)
        if files and isinstance(x, str) and stats is not None:
            told += f" {stats[row].tolist()}".encode() if stats[row, 0] >= 0 else b""
        elif files and isinstance(x, str) and os.path.isfile(x):
            found = os.stat(x)
            told += f" {[found.st_size, found.st_mtime_ns, found.st_ctime_ns]}".encode()
        yield f"{len(told)}:".encode() + told


def describe_changed_splits(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Return the name of each split whose rows have changed, with its former and current number of rows.

    Args:
        before: Split to digest, as in `Fingerprint.digests`.
        now: The current digests.
    """
    counts = {name: [x.get(name, "0:").split(":")[0] for x in (before, now)] for name in SPLITS}
    return [f"{name} ({' then, '.join(counts[name])} now)" for name in SPLITS if before.get(name) != now.get(name)]
