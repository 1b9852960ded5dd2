"""Frozen encoders are computed once: their Features are kept in memory-mapped files, and read instead of the input."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning import Callback, LightningModule, Trainer
from lightning.fabric.utilities import move_data_to_device
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from tqdm import tqdm

from mm.types import Features, Identified, Read

DONE = "done.json"


class FrozenFeatures(Callback):
    """Before the first epoch, for every encoder that is frozen as a whole and whose input is read without chance.

    Kept in `folder` under a key of the encoder's weights and settings, of the data, of how it is read and of the
    precision, for all epochs and for later runs. described: input name -> settings of its encoder and its transform.
    Errors: ValueError where the disk is too small.
    """

    def __init__(self, folder: str, described: Mapping[str, str]):
        self.folder = Path(folder)
        self.described = described

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        model: Any = pl_module.model
        datamodule: Any = trainer.datamodule  # type: ignore[attr-defined]
        for name in model.inputs:
            encoder = model.encoders[model.share.get(name, name)]
            if not is_frozen(encoder) or getattr(datamodule.transforms[name], "augment", None):
                continue
            path = self.folder / self.key(trainer, datamodule, name, encoder)
            there = trainer.strategy.broadcast((path / DONE).exists())
            if not there:
                compute(trainer, datamodule, name, encoder, path)
            if trainer.is_global_zero:
                print(f"features of '{name}', whose encoder is frozen: {'read from' if there else 'kept in'} {path}")
            datamodule.stored[name] = StoredFeatures(path)

    def key(self, trainer: Trainer, datamodule: Any, name: str, encoder: nn.Module) -> str:
        """Of all that the Features follow from."""
        found = hashlib.blake2b(digest_size=16)
        settings = [self.described[name], type(encoder).__qualname__, str(trainer.precision), version("torch")]
        found.update("\n".join(settings).encode())
        for part, x in encoder.state_dict().items():
            found.update(part.encode() + data_of(x.full_tensor() if isinstance(x, DTensor) else x))
        rows = np.flatnonzero(datamodule.table.split != "")
        found.update(rows.tobytes())
        for one in identities(datamodule.table.inputs[name]):
            found.update(one)
        sample = datamodule.batch(rows[:: len(rows) // 16 + 1].tolist(), only=[name])
        found.update(data_of(sample.inputs[name]))  # a tokenizer's words, say, which no setting tells
        return found.hexdigest()


@torch.no_grad()
def compute(trainer: Trainer, datamodule: Any, name: str, encoder: nn.Module, path: Path) -> None:
    """Every process its share of all rows. Errors: ValueError where the disk is too small."""
    loader, writer = datamodule.loader("all", only=[name]), Writer(path, trainer.global_rank)
    shown = tqdm(loader, desc=f"features of {name}", leave=False, disable=not trainer.is_global_zero)
    for number, batch in enumerate(shown):
        batch = datamodule.finish(move_data_to_device(batch, trainer.strategy.root_device))
        x, mask = batch.inputs[name], batch.masks[name]
        with trainer.precision_plugin.forward_context():
            written = writer.add(batch.row, encoder(trainer.precision_plugin.convert_input(x), mask))
        wanted, free = written * len(loader) * trainer.world_size, shutil.disk_usage(path).free
        if number == 0 and wanted > 0.9 * free:
            shutil.rmtree(path)
            raise ValueError(
                f"the features of '{name}' would take {wanted / 1e9:.1f} GB, of {free / 1e9:.1f} GB that are free at "
                f"{path.parent}; set paths.cache to a larger disk, or cache_features=false"
            )
    table = datamodule.table
    about = writer.close() | {
        "faults": [[row, told] for (row, where), told in datamodule.faults.items() if where == table.column(name, row)],
        "cut": [row for row, what in datamodule.long if what == f"cut/{name}"],
    }
    everyone: list[Any] = [about]
    if trainer.world_size > 1:
        everyone = [None] * trainer.world_size
        torch.distributed.all_gather_object(everyone, about)
    if trainer.is_global_zero:
        part = path / f"{DONE}.part"
        part.write_text(json.dumps(everyone))
        os.replace(part, path / DONE)
    trainer.strategy.barrier()


class Writer:
    """One process's part of an input's Features, one entry after the other."""

    def __init__(self, path: Path, rank: int):
        self.folder = path / f"part-{rank}"
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        self.files = {field: (self.folder / field).open("wb") for field in Features._fields}
        self.index: list[tuple[int, int]] = []  # row, tokens
        self.about: dict[str, Any] = {}

    def add(self, row: Tensor, features: Features) -> int:
        """A batch, without what is absent; row (B,) as in Batch. -> bytes written"""
        features = Features(*(x.cpu() for x in features))
        written = 0
        for i in features.mask.any(1).nonzero().flatten().tolist():
            count = int(features.mask[i].nonzero()[-1]) + 1
            self.index.append((int(row[i]), count))
            one = features._replace(pooled=features.pooled[:, None])
            for field, x in one._asdict().items():
                written += self.files[field].write(data_of(x[i, :count]))
        self.about = {
            "width": features.tokens.shape[2],
            "dtypes": {field: str(x.dtype).removeprefix("torch.") for field, x in features._asdict().items()},
        }
        return written

    def close(self) -> dict[str, Any]:
        """-> what a reader must know of this part."""
        for file in self.files.values():
            file.close()
        np.save(self.folder / "index.npy", np.array(self.index, dtype=np.int64).reshape(-1, 2))
        return self.about


class StoredFeatures:
    """A transform whose raw input is the number of the row: gives the Features that were kept of it.

    A row that was absent has none. Errors: ValueError for a row that could not be read, as it was told then.
    """

    multiple = 1

    def __init__(self, path: Path):
        self.path = path
        self.about: list[dict[str, Any]] = json.loads((path / DONE).read_text())
        wide = self.about[0]["width"]
        self.filler = Features(torch.zeros(1, wide), torch.zeros(1).bool(), torch.zeros(wide), torch.zeros(1, 2))
        self.faults = {row: told for part in self.about for row, told in part["faults"]}
        self.cut = {row for part in self.about for row in part["cut"]}

    def __getstate__(self) -> dict[str, Any]:
        return {name: x for name, x in vars(self).items() if name != "windows"}  # every worker maps the files itself

    @cached_property
    def windows(self) -> dict[int, list[Features]]:
        """Row -> the Features of its windows, mapped, not read."""
        found: dict[int, list[Features]] = {}
        for i, about in enumerate(self.about):
            index = np.load(self.path / f"part-{i}/index.npy")
            ends = index[:, 1].cumsum()
            total = int(ends[-1]) if len(ends) else 0
            shapes = {"tokens": (total, about["width"]), "mask": (total,), "position": (total, 2)}
            shapes["pooled"] = (len(index), about["width"])
            part = {
                field: mapped(self.path / f"part-{i}/{field}", shape, getattr(torch, about["dtypes"][field]))
                for field, shape in shapes.items()
            }
            for number, ((row, count), end) in enumerate(zip(index.tolist(), ends.tolist())):
                token = {field: part[field][end - count : end] for field in ("tokens", "mask", "position")}
                found.setdefault(row, []).append(Features(pooled=part["pooled"][number], **token))
        return found

    def __call__(self, raw: Any, train: bool = False) -> Read:
        if raw in self.faults:
            raise ValueError(self.faults[raw])
        return Read(self.windows.get(raw, []), raw in self.cut)  # type: ignore[arg-type]

    def finish(self, x: Tensor) -> Tensor:
        return x

    def lengths(self, raw: Sequence[Any]) -> list[float]:
        return [float(sum(len(f.mask) for f in self.windows.get(row, []))) for row in raw]


def mapped(file: Path, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """A file of raw numbers as a tensor."""
    size = int(np.prod(shape))
    flat = torch.from_file(str(file), shared=False, size=size, dtype=dtype) if size else torch.zeros(0, dtype=dtype)
    return flat.view(shape)


def is_frozen(module: nn.Module) -> bool:
    """Whether it has weights, and none of them learns."""
    parameters = list(module.parameters())
    return bool(parameters) and not any(p.requires_grad for p in parameters)


def data_of(x: Tensor) -> bytes:
    """The numbers of a tensor, whatever their type."""
    return x.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes()


def identities(raw: Sequence[Any]) -> Iterator[bytes]:
    """What tells each raw input from another: a file by path, size and time, all else by its content."""
    if isinstance(raw, Identified):
        yield raw.identity.encode()
        return
    for x in raw:
        if isinstance(x, np.ndarray | Tensor):
            yield data_of(torch.as_tensor(x))
            continue
        told = repr(x)
        if isinstance(x, str) and os.sep in x and len(x) < 4096 and "\0" not in x and os.path.isfile(x):
            found = os.stat(x)
            told += f" {found.st_size} {found.st_mtime_ns}"
        yield told.encode(errors="replace")
