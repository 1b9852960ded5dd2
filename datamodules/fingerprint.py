"""Which rows a split has: digests that tell whether data is what it was, and whether rows have been trained on."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import pyarrow
import torch
import xxhash
from torch import Tensor

from mm.datamodules.paths import NO_FILE, stat_files
from mm.datamodules.table import SPLITS, Table
from mm.transforms.collate import is_absent
from mm.types import Identified, encoded

CHUNK = 65_536  # cells of an Arrow column that are Python objects at once
WORDS = 64  # rows of an array of up to so many 8-byte words are digested by NumPy, longer ones one after the other


@dataclass(frozen=True)
class Fingerprint:
    """The rows of each split, in their order, as digests of 8 bytes.

    Attributes:
        rows: Split to the digests of id, inputs and targets of its rows, (N,) int64.
        inputs: Split to input name to the digests of this input of its rows, (N,) int64, 0 where it is absent. A row
            that has moved in its file, or has another id or target, keeps them.
    """

    rows: dict[str, Tensor]
    inputs: dict[str, dict[str, Tensor]]

    def digests(self) -> dict[str, str]:
        """A digest of each split, and how many rows it has, such as `120:9f86d081884c7d65`."""
        return {
            name: f"{len(rows)}:{xxhash.xxh3_64_hexdigest(np.ascontiguousarray(rows.numpy()).tobytes())}"
            for name, rows in self.rows.items()
        }

    def tensors(self) -> dict[str, Tensor]:
        """What a file of tensors keeps of it; the other way round: `from_tensors`."""
        found = {f"rows/{split}": x for split, x in self.rows.items()}
        return found | {f"inputs/{split}/{name}": x for split, own in self.inputs.items() for name, x in own.items()}


@runtime_checkable
class Digested(Protocol):
    """Raw values of an input whose digests are known without reading them, as those of shards."""

    def digests(self) -> np.ndarray:
        """The digest of each row, 0 where it is absent. -> (N,) uint64"""
        ...


def from_tensors(tensors: Mapping[str, Tensor]) -> Fingerprint:
    """A fingerprint from the tensors that a file has kept of it."""
    found = Fingerprint({}, {})
    for key, x in tensors.items():
        part, split, *name = key.split("/", 2)
        if part == "rows":
            found.rows[split] = x
        else:
            found.inputs.setdefault(split, {})[name[0]] = x
    return found


def fingerprint(table: Table) -> Fingerprint:
    """Take the fingerprint of a table: its ids, the cells of its inputs and targets, and its splits.

    Pictures and sounds in files count by their path, relative to the table's folders, and by their size in bytes, and
    not by their contents, which would have to be read: a folder that has been moved or copied is the same data, and a
    file that was replaced by another one of the same name and size is not noticed. In shards they count alike. Texts,
    arrays and tables count by their contents.

    Args:
        table: All rows.

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
    """uint64, which PyTorch hardly knows, as int64 of the same bits."""
    return torch.from_numpy(x.view(np.int64))


def scramble(x: np.ndarray, salt: str) -> np.ndarray:
    """Make the digests of a column depend on its name as well; an absent cell stays 0. (N,) uint64 -> (N,)"""
    x = np.where(x == 0, x, x ^ np.uint64(xxhash.xxh3_64_intdigest(salt.encode())))
    x = x * np.uint64(0x9E3779B97F4A7C15)
    x ^= x >> np.uint64(32)
    x *= np.uint64(0xD6E8FEB86659FD93)
    return x ^ (x >> np.uint64(29))


def combine(inputs: Mapping[str, np.ndarray]) -> np.ndarray:
    """One digest of several inputs of each row; an absent one changes nothing. At least one (N,) uint64 -> (N,)"""
    return np.stack([scramble(x, name) for name, x in inputs.items()]).sum(axis=0, dtype=np.uint64)


def input_digests(name: str, table: Table) -> np.ndarray:
    """The digests of one input. -> (N,) uint64"""
    raw = table.inputs[name]
    if isinstance(raw, Digested):
        return raw.digests()
    if isinstance(raw, Identified):  # the identity of the whole input, and the place of each row
        base = xxhash.xxh3_64_intdigest(raw.identity.encode())
        return np.arange(len(table.ids), dtype=np.uint64) * np.uint64(0xD6E8FEB86659FD93) + np.uint64(base)
    about = table.spec.inputs.get(name)
    if about is None or about.modality not in ("vision", "audio"):
        return column(raw)
    return column(file_keys(raw, table, table.files.get(name)))


def file_keys(raw: Sequence[Any], table: Table, stats: np.ndarray | None) -> list[Any]:
    """Replace the paths of a table's pictures and sounds by what identifies their files.

    Args:
        raw: The raw inputs; a text is a path.
        table: Whose they are.
        stats: Of the files, as `paths.stat_files` gives them, where the file system was asked before.
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
    """Return what identifies a file: its path, relative to the table's folders, and its size in bytes."""
    return f"{os.path.normpath(path)}\0{size}".encode("utf-8", "surrogatepass")


def column(cells: Any) -> np.ndarray:
    """Digests of the cells of one column.

    Args:
        cells: Any sequence, a tensor, or an Arrow array; bytes are what distinguishes a cell already.

    Returns:
        (N,) uint64, 0 where a cell is absent.
    """
    if isinstance(cells, np.ndarray | Tensor) and np.asarray(cells).dtype != object:
        return numbers(np.asarray(cells))
    if isinstance(cells, pyarrow.Array | pyarrow.ChunkedArray):
        arrow: Any = cells
        parts = [arrow.slice(begin, CHUNK) for begin in range(0, len(arrow), CHUNK)]
        cells = (x for part in parts for x in part.to_pylist())
    digest, cell_bytes = xxhash.xxh3_64_intdigest, encoded
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
    """Digests of the rows of an array. (N, ...) -> (N,) uint64"""
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
    """Digests of the values of a target, which do not depend on the other rows where it is a class. -> (N,) uint64"""
    values, about = table.targets[name], table.spec.targets[name]
    if about.kind == "class" and isinstance(values, Tensor):
        classes = column([*about.classes, None])
        return classes[np.where(values.numpy() < 0, len(about.classes), values.numpy())]
    return column(table.written.get(name, values))


def differences(before: Fingerprint, now: Fingerprint, table: Table) -> str:
    """What has changed in the rows of each split, in words; nothing where they are the same.

    Args:
        before: As the data was.
        now: As it is.
        table: As it is, which names the first changed row.
    """
    found = []
    for split in SPLITS:
        old, new = (x.rows.get(split, torch.zeros(0, dtype=torch.long)) for x in (before, now))
        if torch.equal(old, new):
            continue
        places = np.flatnonzero(table.split == split)
        missing, added = (int((~torch.isin(x, y)).sum()) for x, y in ((old, new), (new, old)))
        said = [f"{split} had {len(old)} rows, now it has {len(new)}"] if len(old) != len(new) else [split]
        said += [f"{missing} of its rows are gone or changed"] if missing else []
        said += [f"{added} are new or changed"] if added else []
        said += ["its rows are in another order"] if not missing and not added else []
        if added:
            first = int((~torch.isin(new, old)).nonzero()[0])
            said += [f"the first is {table.name(int(places[first]))}"]
        found.append(": ".join([said[0], ", ".join(said[1:])]) if said[1:] else said[0])
    return "; ".join(found)


def seen_in_training(before: Fingerprint, now: Fingerprint, split: str) -> np.ndarray:
    """Find the rows of a split that were training rows.

    Rows are compared by those of their inputs that both data have. A row whose like was also held out for validation
    or test, such as a short text that occurs many times, does not count.

    Args:
        before: Of the data that a model was trained on.
        now: Of other data, or of the same.
        split: The split of `now`.

    Returns:
        Which of its rows they are, (N,) bool.
    """
    own = now.inputs.get(split, {})
    names = [name for name, x in own.items() if bool(x.any()) and name in before.inputs.get("train", {})]
    if not names:
        return np.zeros(len(next(iter(own.values()), ())), dtype=bool)

    def together(inputs: Mapping[str, Tensor]) -> np.ndarray:
        return combine({name: inputs[name].numpy().view(np.uint64) for name in names})

    rows, trained = together(own), together(before.inputs["train"])
    held_out = [together(before.inputs[name]) for name in ("val", "test") if name in before.inputs]
    return np.isin(rows, trained) & ~np.isin(rows, np.concatenate([[np.uint64(0)], *held_out]))
