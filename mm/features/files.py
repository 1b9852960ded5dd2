"""Memory-mapped files of Features: each process writes one part, and every worker reads all parts."""

import json
import shutil
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from mm.types import EncodedInput, Features

DONE = "done.json"  # the last file that is written: a list with the metadata of each part


class Writer:
    """Writer of the part of a feature store that belongs to one process.

    Args:
        path: Folder of the feature store.
        rank: Rank of the process.
    """

    def __init__(self, path: Path, rank: int):
        self.folder = path / f"part-{rank}"
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        self.files = {field: (self.folder / field).open("wb") for field in Features._fields}
        self.index: list[tuple[int, int]] = []  # row, tokens
        self.about: dict[str, Any] = {}

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, *error: object) -> None:
        for file in self.files.values():
            file.close()

    def add(self, row: Tensor, features: Features) -> None:
        """Append the Features of a batch, without rows whose input is absent.

        Args:
            row: Row of each sample, (B,), as in `Batch`.
            features: Features of the batch.
        """
        for number, one in entries(row, features):
            self.index.append((number, len(one.mask)))
            for field, x in one._asdict().items():
                self.files[field].write(data_of(x))
        self.about = {
            "width": features.tokens.shape[2],
            "dtypes": {field: str(x.dtype).removeprefix("torch.") for field, x in features._asdict().items()},
        }

    def close(self) -> dict[str, Any]:
        """Close the files and return the metadata needed to read them: width and data types."""
        self.__exit__()
        np.save(self.folder / "index.npy", np.array(self.index, dtype=np.int64).reshape(-1, 2))
        return self.about


class Index(NamedTuple):
    """Positions of all windows in the files of a feature store."""

    first: np.ndarray  # (N + 2,) first window of each row; the last two entries stand for all larger rows
    places: np.ndarray  # (M, 4), sorted by row: rank, index in its part, begin and end of its tokens


class FeatureStore:
    """Transform that returns the stored Features of a row; it is called with the index of the row.

    A row whose input was absent has no Features. A row whose input could not be read raises the ValueError that was
    raised when the Features were computed.

    Args:
        path: Folder of the feature store.
    """

    multiple = 1
    random = False

    def __init__(self, path: Path):
        self.path = path
        self.about: list[dict[str, Any]] = json.loads((path / DONE).read_text(encoding="utf-8"))
        wide = self.about[0]["width"]
        self.meta: dict[str, Tensor] = {}
        self.filler: Tensor | Features = Features(
            torch.zeros(1, wide), torch.zeros(1).bool(), torch.zeros(wide), torch.zeros(1, 2)
        )
        self.faults = {row: told for part in self.about for row, told in part["faults"]}
        self.cut = {row for part in self.about for row in part["cut"]}
        self.unknown = {row for part in self.about for row in part.get("unknown", ())}  # missing in older stores
        self.notes: dict[int, tuple[str, ...]] = {}
        for row, note in (pair for part in self.about for pair in part.get("notes", ())):
            self.notes[row] = (*self.notes.get(row, ()), note)

    def __getstate__(self) -> dict[str, Any]:
        mapped = ("parts", "index")  # every worker maps the files itself, so they are not pickled
        return {name: x for name, x in vars(self).items() if name not in mapped}

    @cached_property
    def parts(self) -> list[dict[str, Tensor]]:
        """The memory-mapped tensors that each process has written, by field of Features."""
        found = []
        for i, about in enumerate(self.about):
            index, wide = np.load(self.path / f"part-{i}/index.npy"), about["width"]
            total = int(index[:, 1].sum())
            shapes = {"tokens": (total, wide), "mask": (total,), "position": (total, 2), "pooled": (len(index), wide)}
            found.append(
                {
                    field: mapped(self.path / f"part-{i}/{field}", shape, getattr(torch, about["dtypes"][field]))
                    for field, shape in shapes.items()
                }
            )
        return found

    @cached_property
    def index(self) -> Index:
        rows, places = [], []
        for i in range(len(self.about)):
            index = np.load(self.path / f"part-{i}/index.npy")  # (M, 2): row, tokens
            ends = index[:, 1].cumsum()
            rows.append(index[:, 0])
            places.append(np.stack([np.full(len(index), i), np.arange(len(index)), ends - index[:, 1], ends], axis=1))
        row = np.concatenate(rows)
        order = np.argsort(row, kind="stable")
        beyond = int(row.max(initial=-1)) + 1
        return Index(np.searchsorted(row[order], np.arange(beyond + 2)), np.concatenate(places)[order])

    def windows(self, row: int) -> list[Features]:
        """Return the memory-mapped Features of each window of a row."""
        first, places = self.index
        row = min(row, len(first) - 2)
        found = []
        for part, number, begin, end in places[first[row] : first[row + 1]].tolist():
            x = self.parts[part]
            token = x["tokens"][begin:end], x["mask"][begin:end]
            found.append(Features(*token, x["pooled"][number], x["position"][begin:end]))
        return found

    def __call__(self, raw: Any, train: bool = False) -> EncodedInput:
        if raw in self.faults:
            raise ValueError(self.faults[raw])
        notes = self.notes.get(raw, ())
        return EncodedInput(self.windows(raw), raw in self.cut, unknown=raw in self.unknown, notes=notes)

    def finish(self, x: Tensor) -> Tensor:
        return x

    def lengths(self, raw: Sequence[Any]) -> list[float]:
        first, places = self.index
        tokens = np.concatenate([[0], (places[:, 3] - places[:, 2]).cumsum()])  # number of tokens before each window
        row = np.minimum(raw, len(first) - 2)
        return (tokens[first[row + 1]] - tokens[first[row]]).astype(float).tolist()


def mapped(file: Path, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Return a file of raw numbers as a memory-mapped tensor."""
    size = int(np.prod(shape))
    flat = torch.from_file(str(file), shared=False, size=size, dtype=dtype) if size else torch.zeros(0, dtype=dtype)
    return flat.view(shape)


def entries(row: Tensor, features: Features) -> Iterator[tuple[int, Features]]:
    """Yield the row and the Features of each sample of a batch whose input is present, without padding at the end.

    Args:
        row: Row of each sample, (B,), as in `Batch`.
        features: Features of the batch.
    """
    features = Features(*(x.cpu() for x in features))
    for i in features.mask.any(1).nonzero().flatten().tolist():
        end = int(features.mask[i].nonzero()[-1]) + 1
        token = {field: getattr(features, field)[i, :end] for field in ("tokens", "mask", "position")}
        yield int(row[i]), Features(pooled=features.pooled[i], **token)


def data_of(x: Tensor) -> bytes:
    """Return the raw bytes of a tensor of any data type."""
    return x.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes()
