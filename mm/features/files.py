"""Features of an encoder in memory-mapped files: one process writes its part, every worker reads all of them."""

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

DONE = "done.json"  # the last file that is written: a list, of each part what a reader must know


class Writer:
    """One process's part of an input's Features, one entry after the other."""

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
        """A batch, without what is absent; row (B,) as in Batch"""
        for number, one in entries(row, features):
            self.index.append((number, len(one.mask)))
            for field, x in one._asdict().items():
                self.files[field].write(data_of(x))
        self.about = {
            "width": features.tokens.shape[2],
            "dtypes": {field: str(x.dtype).removeprefix("torch.") for field, x in features._asdict().items()},
        }

    def close(self) -> dict[str, Any]:
        """-> what a reader must know of this part."""
        self.__exit__()
        np.save(self.folder / "index.npy", np.array(self.index, dtype=np.int64).reshape(-1, 2))
        return self.about


class Index(NamedTuple):
    """Where every window lies."""

    first: np.ndarray  # (N + 2,) of each row, its first window; the last two stand for all rows beyond
    places: np.ndarray  # (M, 4), in the order of rows: which process wrote it, as its which, its tokens' begin and end


class FeatureStore:
    """A transform whose raw input is the number of the row: gives the Features that were kept of it.

    A row that was absent has none. Errors: ValueError for a row that could not be read, as it was told then.
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
        self.unknown = {row for part in self.about for row in part.get("unknown", ())}  # older ones have no tables
        self.notes: dict[int, tuple[str, ...]] = {}
        for row, note in (pair for part in self.about for pair in part.get("notes", ())):
            self.notes[row] = (*self.notes.get(row, ()), note)

    def __getstate__(self) -> dict[str, Any]:
        mapped = ("parts", "index")  # every worker maps the files itself
        return {name: x for name, x in vars(self).items() if name not in mapped}

    @cached_property
    def parts(self) -> list[dict[str, Tensor]]:
        """Of each process that wrote: field -> its numbers, mapped, not read."""
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
        """Those of a row, mapped, not read."""
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
        return EncodedInput(self.windows(raw), raw in self.cut, unknown=raw in self.unknown, notes=notes)  # type: ignore[arg-type]

    def finish(self, x: Tensor) -> Tensor:
        return x

    def lengths(self, raw: Sequence[Any]) -> list[float]:
        first, places = self.index
        tokens = np.concatenate([[0], (places[:, 3] - places[:, 2]).cumsum()])  # before each window
        row = np.minimum(raw, len(first) - 2)
        return (tokens[first[row + 1]] - tokens[first[row]]).astype(float).tolist()


def mapped(file: Path, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """A file of raw numbers as a tensor."""
    size = int(np.prod(shape))
    flat = torch.from_file(str(file), shared=False, size=size, dtype=dtype) if size else torch.zeros(0, dtype=dtype)
    return flat.view(shape)


def entries(row: Tensor, features: Features) -> Iterator[tuple[int, Features]]:
    """(row, its Features up to the last token) of all that is there, in order; row (B,) as in Batch."""
    features = Features(*(x.cpu() for x in features))
    for i in features.mask.any(1).nonzero().flatten().tolist():
        end = int(features.mask[i].nonzero()[-1]) + 1
        token = {field: getattr(features, field)[i, :end] for field in ("tokens", "mask", "position")}
        yield int(row[i]), Features(pooled=features.pooled[i], **token)


def data_of(x: Tensor) -> bytes:
    """The numbers of a tensor, whatever their type."""
    return x.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes()
