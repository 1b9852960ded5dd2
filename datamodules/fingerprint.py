"""Which rows a split has: digests that tell whether data is what it was, and whether rows have been trained on."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xxhash
from torch import Tensor

from mm.datamodules.table import SPLITS, Table
from mm.types import Identified

CHUNK = 65_536  # rows whose text is held at once


@dataclass(frozen=True)
class Fingerprint:
    """The rows of each split, in their order, as digests of 8 bytes.

    Attributes:
        rows: Split to the digests of id, inputs and targets of its rows, (N,) int64.
        inputs: Split to the digests of the inputs of its rows alone, (N,) int64: a row that has moved in its file, or
            has got another id, keeps it.
    """

    rows: dict[str, Tensor]
    inputs: dict[str, Tensor]

    def digests(self) -> dict[str, str]:
        """A digest of each split, and how many rows it has, such as `120:9f86d081884c7d65`."""
        return {
            name: f"{len(rows)}:{xxhash.xxh3_64_hexdigest(np.ascontiguousarray(rows.numpy()).tobytes())}"
            for name, rows in self.rows.items()
        }

    def tensors(self) -> dict[str, Tensor]:
        """What a file of tensors keeps of it; the other way round: `from_tensors`."""
        parts = {"rows": self.rows, "inputs": self.inputs}
        return {f"{part}/{split}": x for part, found in parts.items() for split, x in found.items()}


def from_tensors(tensors: Mapping[str, Tensor]) -> Fingerprint:
    """A fingerprint from the tensors that a file has kept of it."""
    parts: dict[str, dict[str, Tensor]] = {"rows": {}, "inputs": {}}
    for name, x in tensors.items():
        part, _, split = name.partition("/")
        parts[part][split] = x
    return Fingerprint(parts["rows"], parts["inputs"])


def fingerprint(table: Table) -> Fingerprint:
    """Take the fingerprint of a table: its ids, the cells of its inputs and targets, and its splits.

    Pictures and sounds count by the path in their cell, relative to the file that names them, and not by their
    contents, which would have to be read.

    Args:
        table: All rows.

    Returns:
        The digests of the rows of each split that has rows.
    """
    count = len(table.ids)
    inputs = np.zeros(count, dtype=np.uint64)
    for name in sorted(table.inputs):
        inputs = mix(inputs, column(name, table.inputs[name], folders(table), count))
    rows = mix(inputs, column("id", table.ids, [], count))
    for name in sorted(table.targets):
        rows = mix(rows, target(name, table, count))
    signed = torch.from_numpy(rows.view(np.int64)), torch.from_numpy(inputs.view(np.int64))
    places = {split: np.flatnonzero(table.split == split) for split in SPLITS}
    whole, own = ({split: x[where] for split, where in places.items() if len(where)} for x in signed)
    return Fingerprint(whole, own)


def folders(table: Table) -> list[str]:
    """Where the table's files lie, as the paths of their media begin, the longest first."""
    names = [origin.source for origin in table.origins] or [table.source]
    found = {str(parent) for name in names for path in [Path(name)] for parent in (path.parent, path.parent.resolve())}
    return sorted(({f"{name}/" for name in found if name not in (".", "/")}), key=len, reverse=True)


def mix(seed: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Combine the digests of earlier columns with those of one more; the order of columns counts. (N,), (N,) -> (N,)"""
    with np.errstate(over="ignore"):
        return (seed * np.uint64(0x9E3779B97F4A7C15) + x) ^ (x >> np.uint64(29))


def column(name: str, cells: Any, relative_to: Sequence[str], count: int) -> np.ndarray:
    """Digests of the cells of one column. -> (N,) uint64"""
    salt = xxhash.xxh3_64_intdigest(name.encode())
    if isinstance(cells, Identified):  # too large to be read for it: what its index says of all of it
        base = xxhash.xxh3_64_intdigest(cells.identity.encode(), seed=salt)
        return mix(np.full(count, base, dtype=np.uint64), np.arange(count, dtype=np.uint64))
    found = (xxhash.xxh3_64_intdigest(x, seed=salt) for x in encoded(cells, tuple(relative_to)))
    return np.fromiter(found, dtype=np.uint64, count=count)


def encoded(cells: Sequence[Any], relative_to: tuple[str, ...]) -> Iterator[bytes]:
    """The cells of a column as bytes; a text and an array of the same bytes do not occur in one column."""
    for cell in cells:
        if isinstance(cell, str):
            if relative_to and cell.startswith(relative_to):
                cell = next(cell.removeprefix(folder) for folder in relative_to if cell.startswith(folder))
            yield cell.encode("utf-8", "surrogatepass")
        elif isinstance(cell, np.ndarray | Tensor):
            array = np.ascontiguousarray(cell)
            yield f"{array.dtype}{array.shape}".encode() + array.tobytes()
        elif isinstance(cell, tuple | list) and any(isinstance(part, np.ndarray | Tensor) for part in cell):
            yield b"\x1f".join(encoded(cell, ()))
        else:
            yield repr(cell).encode("utf-8", "surrogatepass")


def target(name: str, table: Table, count: int) -> np.ndarray:
    """Digests of the values of a target, which do not depend on the other rows where it is a class. -> (N,) uint64"""
    values, about = table.targets[name], table.spec.targets[name]
    if about.kind == "class" and isinstance(values, Tensor):
        classes = column(name, [*about.classes, None], [], len(about.classes) + 1)
        return classes[np.where(values.numpy() < 0, len(about.classes), values.numpy())]
    return column(name, table.written.get(name, values), [], count)


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
    """Which rows of a split were training rows, by their inputs, and were no rows of that split then. -> (N,) bool"""
    empty = torch.zeros(0, dtype=torch.long)
    rows = now.inputs.get(split, empty)
    trained, own = before.inputs.get("train", empty), before.inputs.get(split, empty)
    return (torch.isin(rows, trained) & ~torch.isin(rows, own)).numpy()
