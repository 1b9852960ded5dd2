"""Frozen encoders are computed once: their Features are kept in memory-mapped files, and read instead of the input."""

import hashlib
import json
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning import Callback, LightningModule, Trainer
from lightning.fabric.utilities import move_data_to_device
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from tqdm import tqdm

from mm.data_source import DataSource, data_source
from mm.features.files import DONE, FeatureStore, Writer, data_of, entries
from mm.files import discard, put
from mm.types import Batch, Features

SAMPLE = 16  # rows by which the size is estimated, and stored Features are compared with what the encoder gives now
WAIT = 60.0  # seconds between two words among processes while another run computes the same
# How much of their norm Features of the same rows may differ by in other batches, and on other devices.
SLACK, SLACK_HALF = 0.01, 0.05


class FrozenFeatures(Callback):
    """Before the first epoch, for every encoder that is frozen as a whole and whose input is read without chance.

    Kept in `folder` under a key of the encoder's weights and settings, of the data, of how it is read and of the
    precision, for all epochs and for later runs; of runs at the same time one computes. Where the encoder gives others
    for a few rows, its code has changed: they are computed anew. described: input name -> settings of its encoder and
    its transform. Errors: ValueError where the disk is too small.
    """

    def __init__(self, folder: str, described: Mapping[str, str]):
        self.folder = Path(folder)
        self.described = described

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        model: Any = pl_module.model
        data = data_source(trainer)
        for name in model.inputs:
            encoder = model.encoders[model.shared_encoders.get(name, name)]
            if not is_frozen(encoder) or data.transforms[name].random:
                continue
            sample = data.batch(spread(np.flatnonzero(data.splits != "")), only=[name])
            path = self.folder / self.key(trainer, data, name, encoder, sample)
            with locked(trainer, path.with_name(f"{path.name}.lock")):
                path, there = find(trainer, name, encoder, path, sample)
                if not there:
                    compute(trainer, data, name, encoder, path)
            if trainer.is_global_zero:
                print(f"features of '{name}', whose encoder is frozen: {'read from' if there else 'kept in'} {path}")
            data.stored[name] = FeatureStore(path)

    def key(self, trainer: Trainer, data: DataSource, name: str, encoder: nn.Module, sample: Batch) -> str:
        """Of all that the Features follow from."""
        found = hashlib.blake2b(digest_size=16)
        settings = [self.described[name], type(encoder).__qualname__, str(trainer.precision), version("torch")]
        found.update("\n".join(settings).encode())
        for part, x in encoder.state_dict().items():
            found.update(part.encode() + data_of(x.full_tensor() if isinstance(x, DTensor) else x))
        rows = np.flatnonzero(data.splits != "")
        found.update(rows.tobytes())
        for one in data.input_digests(name):
            found.update(one)
        found.update(data_of(sample.inputs[name]))  # type: ignore[arg-type]  # a tokenizer's words, say, which no setting tells
        return found.hexdigest()


def find(trainer: Trainer, name: str, encoder: nn.Module, path: Path, sample: Batch) -> tuple[Path, bool]:
    """The folder whose Features are those of the encoder as it is, and whether it is there already."""
    for number in count(1):
        there = path if number == 1 else path.with_name(f"{path.name}-{number}")
        if not trainer.strategy.broadcast((there / DONE).exists()):
            return there, False
        now = encode(trainer, encoder, name, sample)
        if trainer.strategy.broadcast(same(FeatureStore(there), sample.row, now, str(trainer.precision))):
            return there, True
        if trainer.is_global_zero:
            print(f"features of '{name}' in {there} are not what its encoder gives now: others are kept beside them")
    raise AssertionError


@contextmanager
def locked(trainer: Trainer, lock: Path) -> Iterator[None]:
    """While no other run holds the lock; the first process holds it for all."""
    from filelock import FileLock, Timeout

    lock.parent.mkdir(parents=True, exist_ok=True)
    held = FileLock(lock)

    def take() -> bool:
        try:
            held.acquire(timeout=WAIT)
        except Timeout:
            return False
        return True

    try:
        # Word after word: processes that wait for one longer than some minutes give up.
        while not trainer.strategy.broadcast(trainer.is_global_zero and take()):
            if trainer.is_global_zero:
                print(f"another run computes the same features: waiting for {lock}")
        yield
    finally:
        held.release()


def spread(rows: np.ndarray) -> list[int]:
    """A few of them, from the first to the last."""
    return rows[:: len(rows) // SAMPLE + 1].tolist()


@torch.no_grad()
def encode(trainer: Trainer, encoder: nn.Module, name: str, batch: Batch) -> Features:
    """An input of a finished batch, on the device."""
    batch = move_data_to_device(batch, trainer.strategy.root_device)
    with trainer.precision_plugin.forward_context():
        return encoder(trainer.precision_plugin.convert_input(batch.inputs[name]), batch.masks[name])


def same(stored: FeatureStore, row: Tensor, now: Features, precision: str) -> bool:
    """Whether what was stored of some rows is what an encoder gives for them now; row (B,) as in Batch."""
    slack = SLACK_HALF if "16" in precision else SLACK
    found: dict[int, list[Features]] = {}
    for number, one in entries(row, now):
        found.setdefault(number, []).append(one)
    for number in {int(x) for x in row if x >= 0}:
        before, after = stored.windows(number), found.get(number, [])
        if [len(x.mask) for x in before] != [len(x.mask) for x in after]:
            return False
        for old, new in zip(before, after):
            pairs = [(x.double(), y.double()) for x, y in zip(old, new)]
            if any((x - y).norm() > slack * y.norm() + 1e-6 for x, y in pairs):
                return False
    return True


def compute(trainer: Trainer, data: DataSource, name: str, encoder: nn.Module, path: Path) -> None:
    """Every process its share of all rows; the folder appears whole. Errors: ValueError where the disk is too small."""
    part = path.with_name(f"{path.name}.part")
    if trainer.is_global_zero:
        discard(part)  # of a run that was killed
        part.mkdir(parents=True)
    trainer.strategy.barrier()
    try:
        check_disk(trainer, data, name, encoder, path.parent)
        about = write(trainer, data, name, encoder, part)
        everyone: list[Any] = [about]
        if trainer.world_size > 1:
            everyone = [None] * trainer.world_size
            torch.distributed.all_gather_object(everyone, about)
        if trainer.is_global_zero:
            (part / DONE).write_text(json.dumps(everyone), encoding="utf-8")
            put(part, path)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    trainer.strategy.barrier()


def check_disk(trainer: Trainer, data: DataSource, name: str, encoder: nn.Module, folder: Path) -> None:
    """Errors: ValueError where the Features of all rows, by those of a few, would not fit."""
    rows = data.rows("all")
    few = spread(rows)
    batch = data.batch(few, only=[name])
    there = entries(batch.row, encode(trainer, encoder, name, batch))
    size = sum(x.numel() * x.element_size() for _, one in there for x in one)
    lengths = data.lengths([name])[name]  # (N,)
    wanted, free = size * lengths[rows].sum() / max(lengths[few].sum(), 1), shutil.disk_usage(folder).free
    if wanted > 0.9 * free:
        raise ValueError(
            f"the features of '{name}' would take {wanted / 1e9:.1f} GB, of {free / 1e9:.1f} GB that are free at "
            f"{folder}; set paths.cache to a larger disk, or cache_features=false"
        )


def write(trainer: Trainer, data: DataSource, name: str, encoder: nn.Module, folder: Path) -> dict[str, Any]:
    """This process's share. -> what a reader must know of it."""
    loader = data.loader("all", only=[name])
    shown = tqdm(loader, desc=f"features of {name}", leave=False, disable=not trainer.is_global_zero)
    with Writer(folder, trainer.global_rank) as writer:
        for batch in shown:
            batch = data.finish(move_data_to_device(batch, trainer.strategy.root_device))
            writer.add(batch.row, encode(trainer, encoder, name, batch))
        about = writer.close()
    return about | {
        "faults": [[row, told] for (row, where), told in data.faults.items() if where == data.column_of(name, row)],
        "cut": [row for row, what in data.notes if what == f"truncated/{name}"],
        "unknown": [row for row, what in data.notes if what == f"oov/{name}"],
        "notes": notes_of(data.notes, name),
    }


def notes_of(notes: Iterable[tuple[int, str]], name: str) -> list[tuple[int, str]]:
    """Return rows and what was noted of an input, as in Read.notes; notes: as in DataSource."""
    others = ("truncated", "oov", "windowed")
    found = [(row, what.removesuffix(f"/{name}")) for row, what in sorted(notes) if what.endswith(f"/{name}")]
    return [(row, note) for row, note in found if note not in others]


def is_frozen(module: nn.Module) -> bool:
    """Whether it has weights, and none of them learns."""
    parameters = list(module.parameters())
    return bool(parameters) and not any(p.requires_grad for p in parameters)
