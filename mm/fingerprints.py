"""Digests of the rows of each split, which show whether data has changed and whether rows were used in training."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import xxhash
from torch import Tensor

if TYPE_CHECKING:
    from mm.data_source import DataSource


@dataclass(frozen=True)
class Fingerprint:
    """The rows of each split, in their order, as digests of 8 bytes.

    Attributes:
        rows: Split to the digests of ID, inputs and targets of its rows, (N,) int64.
        inputs: Split to input name to the digests of this input, (N,) int64; 0 if it is absent. They do not depend on
            the position of the row in its file, its ID and its targets.
    """

    rows: dict[str, Tensor]
    inputs: dict[str, dict[str, Tensor]]

    def digests(self) -> dict[str, str]:
        """Return the number of rows and a digest of each split, such as `120:9f86d081884c7d65`."""
        return {
            name: f"{len(rows)}:{xxhash.xxh3_64_hexdigest(np.ascontiguousarray(rows.numpy()).tobytes())}"
            for name, rows in self.rows.items()
        }

    def tensors(self) -> dict[str, Tensor]:
        """Return the digests as named tensors for a file; `from_tensors` converts them back."""
        found = {f"rows/{split}": x for split, x in self.rows.items()}
        return found | {f"inputs/{split}/{name}": x for split, own in self.inputs.items() for name, x in own.items()}


def from_tensors(tensors: Mapping[str, Tensor]) -> Fingerprint:
    """Return the fingerprint from the tensors of `Fingerprint.tensors`."""
    found = Fingerprint({}, {})
    for key, x in tensors.items():
        part, split, *name = key.split("/", 2)
        if part == "rows":
            found.rows[split] = x
        else:
            found.inputs.setdefault(split, {})[name[0]] = x
    return found


def differences(before: Fingerprint, now: Fingerprint, data: "DataSource") -> str:
    """Describe how the rows of each split have changed; "" if they are the same.

    Args:
        before: Earlier fingerprint of the data.
        now: Current fingerprint of the data.
        data: The current data, for the name of the first changed row.
    """
    found = []
    for split in ("train", "val", "test"):
        old, new = (x.rows.get(split, torch.zeros(0, dtype=torch.long)) for x in (before, now))
        if torch.equal(old, new):
            continue
        places = np.flatnonzero(data.splits == split)
        missing, added = (int((~torch.isin(x, y)).sum()) for x, y in ((old, new), (new, old)))
        said = [f"{split} had {len(old)} rows, now it has {len(new)}"] if len(old) != len(new) else [split]
        said += [f"{missing} of its rows are gone or changed"] if missing else []
        said += [f"{added} are new or changed"] if added else []
        said += ["its rows are in another order"] if not missing and not added else []
        if added:
            first = int((~torch.isin(new, old)).nonzero()[0])
            said += [f"the first is {data.row_name(int(places[first]))}"]
        found.append(": ".join([said[0], ", ".join(said[1:])]) if said[1:] else said[0])
    return "; ".join(found)


def seen_in_training(before: Fingerprint, now: Fingerprint, split: str) -> np.ndarray:
    """Find the rows of a split that were training rows of a model.

    Rows are compared by the inputs that both data have. A row that equals a validation or test row of the model's data,
    such as a short text that occurs many times, does not count.

    Args:
        before: Fingerprint of the data on which the model was trained.
        now: Fingerprint of the data to check.
        split: Split of `now`.

    Returns:
        Whether each row of the split was a training row, (N,) bool.
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


def combine(inputs: Mapping[str, np.ndarray]) -> np.ndarray:
    """Combine the digests of several inputs into one digest per row, (N,) uint64; absent inputs have no influence."""
    return np.stack([scramble(x, name) for name, x in inputs.items()]).sum(axis=0, dtype=np.uint64)


def scramble(x: np.ndarray, salt: str) -> np.ndarray:
    """Mix the name of a column into its digests, (N,) uint64; the digest 0 of an absent cell stays 0."""
    x = np.where(x == 0, x, x ^ np.uint64(xxhash.xxh3_64_intdigest(salt.encode())))
    x = x * np.uint64(0x9E3779B97F4A7C15)
    x ^= x >> np.uint64(32)
    x *= np.uint64(0xD6E8FEB86659FD93)
    return x ^ (x >> np.uint64(29))


class Identified:
    """Base class for the raw values of an input that have an identity without being read.

    It is a base class rather than a protocol, because a user's class may have another attribute of this name.
    """

    identity: str


def cell_bytes(cell: Any) -> bytes:
    """Return the type and content of a cell that is not a text as bytes, which differ for different cells."""
    if isinstance(cell, np.ndarray | Tensor):
        array = np.ascontiguousarray(cell)
        return f"{array.dtype}{array.shape}".encode() + array.tobytes()
    if isinstance(cell, Mapping):
        return nested("{", (part for item in cell.items() for part in item))
    if isinstance(cell, list | tuple):
        return nested("[", cell)
    return repr(cell).encode("utf-8", "surrogatepass")


def nested(kind: str, parts: Iterable[Any]) -> bytes:
    """Return the parts of a cell as bytes, each preceded by its length."""

    def parts_with_length() -> Iterator[bytes]:
        for part in parts:
            data = cell_bytes(part)
            yield f"{len(data)}:".encode() + data

    return kind.encode() + b"".join(parts_with_length())
