"""Reading of the rows of a table in worker processes, and the loader of batches."""

import random
from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from mm.batching import Sample, collate, is_absent
from mm.data.sampling import Draw, Order
from mm.data.table import Fault, Table
from mm.signals import answer_parent_only
from mm.targets.base import AlignedCodec, TargetTruncatedError
from mm.tensors import unlabelled_value
from mm.transforms.augment import AugmentError
from mm.transforms.stored import StoredError
from mm.types import Batch, EncodedInput, TargetCodec, Transform

# Remedies for errors that no row has caused, which are raised whatever on_error is.
FIXES = {
    AugmentError: "Change datamodule.transforms; no row is at fault",
    StoredError: "Make the shards whole again, or reachable; no row is at fault",
}


class RowRead(NamedTuple):
    """One row, read by a worker: the sample, errors, and notes on its inputs."""

    sample: Sample
    faults: list[Fault]
    # Of inputs that were too long, such as "truncated/text" or "windowed/audio"; "oov/tabular"; notes of Read; and
    # targets that lie in what was cut, "target_truncated/answer".
    long: list[str]


class Loaded(NamedTuple):
    """One batch, made by a worker, with errors and notes."""

    batch: Batch
    faults: list[Fault]
    long: list[tuple[int, str]]  # row, as in RowRead


def unlabelled(targets: Tensor) -> Tensor:
    """Return targets of the same shape in which everything is unlabelled."""
    return torch.full_like(targets, unlabelled_value(targets))


class Rows(Dataset[RowRead]):
    """Data set of the rows of a table, which are decoded on access. Row -1 is an empty row: absent and unlabelled.

    Random numbers in reading a training row are determined by its draw alone, so they depend neither on the number of
    workers nor on where a run was resumed.

    Args:
        table: The table.
        transforms: Input name to transform.
        on_error: Handling of a row that can't be read: "raise", "drop" or "missing".
        train: Whether to augment rows.
        stored: Input name to a transform that returns precomputed features for a row index.
        readers: Target name to the codec of its cells.
        whole: Whether `transforms` has all inputs of the model; a row without any of them is then unlabelled.
    """

    def __init__(
        self,
        table: Table,
        transforms: Mapping[str, Transform],
        on_error: str,
        train: bool,
        stored: Mapping[str, Transform] | None = None,
        readers: Mapping[str, TargetCodec] | None = None,
        whole: bool = True,
    ):
        self.table = table
        self.stored = {name: described(t, transforms[name]) for name, t in (stored or {}).items() if name in transforms}
        self.transforms = {**transforms, **self.stored}
        self.on_error = on_error
        self.train = train
        self.whole = whole
        self.own = transforms
        known = {name: reader for name, reader in (readers or {}).items() if name in table.targets}
        self.aligned = {name: reader for name, reader in known.items() if isinstance(reader, AlignedCodec)}
        self.blank: dict[str, Any] = {name: unlabelled(t[0]) for name, t in table.targets.items()}

    def __len__(self) -> int:
        return len(self.table.ids)

    def __getitem__(self, draw: Draw) -> RowRead:
        row = draw.row
        inputs: dict[str, EncodedInput | None] = dict.fromkeys(self.transforms)
        if row < 0:
            return RowRead(Sample(inputs, self.blank, row), [], [])
        if self.train:
            seed_all(draw.seed)
        faults = []
        for name, transform in self.transforms.items():
            try:
                raw = row if name in self.stored else self.table.inputs[name][row]
                if is_absent(raw):
                    continue
                read = transform(raw, self.train)
                if transform.meta and read.windows and not read.meta:  # computed before, without what decoding needs
                    read = read._replace(meta=self.own[name](self.table.inputs[name][row]).meta)
                inputs[name] = read
            except ValueError as error:
                faults.append(Fault(row, self.table.column(name, row), str(error), FIXES.get(type(error), "")))
        targets: dict[str, Any] = {name: values[row] for name, values in self.table.targets.items()}
        truncated = []
        for name, reader in self.aligned.items():
            try:
                targets[name] = self.align(targets[name], reader, inputs.get(reader.input))
            except ValueError as error:
                # The length of a target that is not aligned says nothing about the input's tokens.
                targets[name] = unlabelled(targets[name][:1])
                if isinstance(error, TargetTruncatedError) and not self.train:
                    truncated.append(name)  # a limit on what the model reads must not make its test easier
                else:
                    faults.append(Fault(row, self.table.column(name, row), str(error)))
        if faults and self.on_error == "drop":  # filler takes its place, so that batches keep their size
            return RowRead(Sample(dict.fromkeys(self.transforms), self.blank, -1), faults, [])
        reads = {name: read for name, read in inputs.items() if read is not None}
        if self.whole and not any(read.windows or read.taken for read in reads.values()):  # nothing can be asked of it
            return RowRead(Sample(inputs, self.blank, row), faults, ["no_input"])
        long = [f"truncated/{name}" for name, read in reads.items() if read.cut]
        long += [f"windowed/{name}" for name, read in reads.items() if len(read.windows) > 1]
        long += [f"oov/{name}" for name, read in reads.items() if read.unknown]
        long += [f"target_truncated/{name}" for name in truncated]
        long += [f"{note}/{name}" for name, read in reads.items() for note in read.notes]
        return RowRead(Sample(inputs, targets, row), faults, long)

    def align(self, target: Tensor, reader: AlignedCodec, read: EncodedInput | None) -> list[Tensor]:
        """Return the target of each window; unlabelled if the input is absent or could not be read."""
        return [unlabelled(target[:1])] if read is None or not read.windows else reader.align(target, read)


class Loader(DataLoader[Any]):
    """A DataLoader that yields Batches only, passes errors and notes to `keep`, and counts its batches."""

    keep: Any = None
    taken = 0  # batches of the epoch since this process went on with it

    @property
    def order(self) -> Order:
        """Return the batch sampler."""
        return self.batch_sampler  # type: ignore[return-value]

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        self.taken = 0
        for loaded in super().__iter__():
            self.keep(loaded)
            self.taken += 1
            yield loaded.batch


def described(stored: Transform, own: Transform) -> Transform:
    """Return a copy of a transform for stored features, with the `meta` of the input's own transform."""
    stored = copy(stored)
    stored.meta = own.meta
    return stored


def join(rows: Sequence[RowRead], transforms: Mapping[str, Transform]) -> Loaded:
    """Collate the rows that a worker has read into one batch."""
    batch = collate([r.sample for r in rows], transforms)
    long = [(r.sample.row, what) for r in rows for what in r.long]
    return Loaded(batch, [fault for r in rows for fault in r.faults], long)


def begin_worker(worker: int) -> None:
    """Prepare a worker process: it uses one thread, and ignores the signals that end the run.

    The number of workers thus equals the number of busy cores.
    """
    answer_parent_only()
    torch.set_num_threads(1)


def seed_all(seed: int) -> None:
    """Seed all random generators that an augmentation may use."""
    random.seed(seed)
    np.random.seed(seed)
    torch.default_generator.manual_seed(seed)  # torch.manual_seed asks every kind of device: 0.2 ms where there is none


def measure_lengths(table: Table, name: str, transform: Transform) -> np.ndarray:
    """Return the length of every row for one input, (N,), read shard by shard.

    Args:
        table: The table.
        name: Name of the input.
        transform: Transform of the input.
    """
    raw, count = table.inputs[name], len(table.ids)
    order = np.arange(count) if table.shard is None else np.argsort(table.shard, kind="stable")
    lengths = np.zeros(count)
    for part in np.array_split(order, count // 65_536 + 1):  # in parts, because texts are loaded for it
        lengths[part] = transform.lengths([raw[row] for row in part.tolist()])
    return lengths
