"""Callback that computes the Features of frozen encoders once and stores them in memory-mapped files."""

import hashlib
import json
import logging
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

logger = logging.getLogger("mm")
SAMPLE = 16  # number of rows for estimating the size, and for comparing stored with current Features
WAIT = 60.0  # seconds between two broadcasts while another run computes the same Features
# Relative tolerance of Features of the same rows in other batches and on other devices; with 16 bits SLACK_HALF.
SLACK, SLACK_HALF = 0.01, 0.05


class FrozenFeatures(Callback):
    """Callback that computes the Features of frozen encoders once, and uses them instead of the inputs.

    Before the first epoch it treats every encoder all of whose weights are frozen and whose transform has no random
    augmentation. The Features are stored for all epochs and for later runs, in a folder whose name is a digest of the
    weights and settings of the encoder, the data, the transform and the precision. If several runs need the same
    Features at the same time, one of them computes them. The stored Features of a few rows are compared with the
    current output of the encoder. If they differ, the code of the encoder has changed, and the Features are computed
    again.

    Args:
        folder: Folder of all feature stores.
        described: Input name to the settings of its encoder and its transform, as text.

    Raises:
        ValueError: If the disk is too small.
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
                state = "read from" if there else "kept in"
                logger.info(f"features of '{name}', whose encoder is frozen: {state} {path}")
            data.stored[name] = FeatureStore(path)

    def key(self, trainer: Trainer, data: DataSource, name: str, encoder: nn.Module, sample: Batch) -> str:
        """Return a digest of everything that determines the Features of an input.

        Args:
            trainer: The Trainer, with its precision.
            data: The source of the rows.
            name: Name of the input.
            encoder: Encoder of the input.
            sample: Batch of a few rows; it covers settings that are not described, such as the vocabulary of a
                tokenizer.
        """
        found = hashlib.blake2b(digest_size=16)
        settings = [self.described[name], type(encoder).__qualname__, str(trainer.precision), version("torch")]
        found.update("\n".join(settings).encode())
        for part, x in encoder.state_dict().items():
            found.update(part.encode() + data_of(x.full_tensor() if isinstance(x, DTensor) else x))
        rows = np.flatnonzero(data.splits != "")
        found.update(rows.tobytes())
        for one in data.input_digests(name):
            found.update(one)
        found.update(data_of(sample.inputs[name]))  # type: ignore[arg-type]  # such as a tokenizer's vocabulary
        return found.hexdigest()


def find(trainer: Trainer, name: str, encoder: nn.Module, path: Path, sample: Batch) -> tuple[Path, bool]:
    """Return the folder of the Features that agree with the current encoder, and whether it already exists.

    Args:
        trainer: The Trainer.
        name: Name of the input.
        encoder: Encoder of the input.
        path: First folder to try; others have the same name with a number.
        sample: Batch of a few rows, for which stored and current Features are compared.
    """
    for number in count(1):
        there = path if number == 1 else path.with_name(f"{path.name}-{number}")
        if not trainer.strategy.broadcast((there / DONE).exists()):
            return there, False
        now = encode(trainer, encoder, name, sample)
        if trainer.strategy.broadcast(same(FeatureStore(there), sample.row, now, str(trainer.precision))):
            return there, True
        if trainer.is_global_zero:
            logger.info(
                f"features of '{name}' in {there} are not what its encoder gives now: others are kept beside them"
            )
    raise AssertionError


@contextmanager
def locked(trainer: Trainer, lock: Path) -> Iterator[None]:
    """Context manager that waits until no other run holds a lock file, and then holds it.

    Rank 0 holds the lock for all processes of the run.

    Args:
        trainer: The Trainer.
        lock: The lock file.
    """
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
        # Broadcasts are repeated, because processes that wait for minutes for a single one time out.
        while not trainer.strategy.broadcast(trainer.is_global_zero and take()):
            if trainer.is_global_zero:
                logger.info(f"another run computes the same features: waiting for {lock}")
        yield
    finally:
        held.release()


def spread(rows: np.ndarray) -> list[int]:
    """Return a few evenly spaced rows."""
    return rows[:: len(rows) // SAMPLE + 1].tolist()


@torch.no_grad()
def encode(trainer: Trainer, encoder: nn.Module, name: str, batch: Batch) -> Features:
    """Return the Features of one input of a batch, computed on the device of the Trainer without gradients.

    Args:
        trainer: The Trainer.
        encoder: Encoder of the input.
        name: Name of the input.
        batch: The batch, as the encoder expects it.
    """
    batch = move_data_to_device(batch, trainer.strategy.root_device)
    with trainer.precision_plugin.forward_context():
        return encoder(trainer.precision_plugin.convert_input(batch.inputs[name]), batch.masks[name])


def same(stored: FeatureStore, row: Tensor, now: Features, precision: str) -> bool:
    """Return whether the stored Features of some rows agree with the current ones, up to rounding errors.

    Args:
        stored: The feature store.
        row: Row of each sample, (B,), as in `Batch`.
        now: Current Features of the batch.
        precision: Precision of the Trainer, such as "16-mixed", which determines the tolerance.
    """
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
    """Compute and store the Features of all rows; every process computes a part of them.

    The folder is renamed to its final name only when it is complete.

    Args:
        trainer: The Trainer.
        data: The source of the rows.
        name: Name of the input.
        encoder: Encoder of the input.
        path: Folder of the feature store.

    Raises:
        ValueError: If the disk is too small.
    """
    part = path.with_name(f"{path.name}.part")
    if trainer.is_global_zero:
        discard(part)  # left over by a run that was killed
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
    """Raise an error if the Features of all rows do not fit on the disk; their size is estimated from a few rows.

    Args:
        trainer: The Trainer.
        data: The source of the rows.
        name: Name of the input.
        encoder: Encoder of the input.
        folder: Folder whose free space is checked.

    Raises:
        ValueError: If the Features would take more than 90 % of the free space.
    """
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
    """Encode the rows that belong to this process and write their Features.

    Args:
        trainer: The Trainer.
        data: The source of the rows.
        name: Name of the input.
        encoder: Encoder of the input.
        folder: Folder of the feature store.

    Returns:
        The metadata needed to read the Features of this process: their width and data types, and the errors and notes
        of the rows.
    """
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
    """Return (row, note) for the notes of one input, without those that are stored separately.

    Args:
        notes: Pairs of row and `NOTE/INPUT`, as in `DataSource`.
        name: Name of the input.
    """
    others = ("truncated", "oov", "windowed")
    found = [(row, what.removesuffix(f"/{name}")) for row, what in sorted(notes) if what.endswith(f"/{name}")]
    return [(row, note) for row, note in found if note not in others]


def is_frozen(module: nn.Module) -> bool:
    """Return whether a module has parameters and all of them are frozen."""
    parameters = list(module.parameters())
    return bool(parameters) and not any(p.requires_grad for p in parameters)
