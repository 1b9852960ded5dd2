"""The base class of all data modules: table, splits, batches for each process, and the handling of invalid rows."""

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from lightning import LightningDataModule

from mm.batching import finish
from mm.configurable import check_former_arguments
from mm.data.faults import describe_fault, list_faults, printable, write_faults
from mm.data.fingerprint import describe_changed_splits, fingerprint, identities
from mm.data.loading import Loaded, Loader, Rows, begin_worker, join, measure_lengths
from mm.data.mixing import Balance, Mixing, mix_rows
from mm.data.rereading import reread_without_split
from mm.data.sampling import Batching, Draw, Order, Shards, length_limits
from mm.data.splitting import Split, keep_some, rows_of_split
from mm.data.table import ON_ERROR, Fault, Table
from mm.fingerprints import Fingerprint
from mm.messages import say
from mm.modalities import default_transforms, get_modality, sort_inputs
from mm.targets.classes import ClassTarget
from mm.types import Batch, DataSpec, TargetCodec, TargetData, Transform


class DataModule(LightningDataModule):
    """A LightningDataModule over a table of rows. Subclasses implement `read`, which returns the table.

    It is a `DataSource`. Until `use` or `bind` set the transforms of a model, inputs are read with the transforms of
    the default encoders of their modalities.

    Args:
        batch_size: Number of rows per process and step; with `max_batch_length`, the maximum number.
        num_workers: Number of worker processes that read rows.
        on_error: Handling of a row that can't be read: "raise", "drop", or "missing" (its input counts as absent).
        split: Split of data without a split column: the fractions `val` and `test` of the rows (default: 0.1 each),
            their `seed`, and the number of training `rows` to keep.
        seed: Random seed of the order of training rows and of augmentations.
        inputs: Names of the inputs to use; default: all.
        shuffle: Whether to shuffle the training rows in each epoch.
        readers: Target name to the codec that encodes its cells; default: class targets.
        known: Target name to the classes and statistics of a trained model.
        trained: Whether the rows are for a trained model, whose facts about its inputs are used. Targets that it does
            not know are not read.
        draw_split: Whether to draw a split at random if there is no split column. False: all rows are test rows, for a
            trained model as with `trained`.
        max_batch_length: Input name to the maximum number of tokens or seconds per process and step, including padding,
            such as {text: 4096, audio: 60}.
        num_buckets: Number of buckets of rows of similar length, for each input of `max_batch_length`.
        mixing: Fractions of several files in an epoch: "proportional" to their rows, "uniform", or "temperature". Each
            is multiplied by the weight of the file.
        temperature: Temperature T of `mixing=temperature`: fractions are proportional to the number of rows to the
            power of 1 / T.
        homogeneous_batches: Whether every batch contains rows of one of several files only.
        shuffle_window: Number of shards from which training rows are drawn at a time.
        balance_by: Name of a target whose classes are balanced when training rows are drawn; None: no balancing.
        balance_exponent: Strength of the balancing: 1: all classes are equally frequent; 0.5: classes are weighted by
            the inverse square root of their counts; 0: no balancing.

    Raises:
        ValueError: If a setting is invalid, or, once the data is read, if the data is; the message names row, ID,
            column and remedy.
    """

    def __init__(
        self,
        batch_size: int = 64,
        num_workers: int = 2,
        on_error: str = "raise",
        split: Mapping[str, Any] | None = None,
        seed: int = 0,
        inputs: Sequence[str] | None = None,
        shuffle: bool = True,
        readers: Mapping[str, TargetCodec] | None = None,
        known: Mapping[str, TargetData | None] | None = None,
        trained: bool = False,
        draw_split: bool = True,
        max_batch_length: Mapping[str, float | None] | None = None,
        num_buckets: int = 16,
        mixing: str = "proportional",
        temperature: float = 2.0,
        homogeneous_batches: bool = False,
        shuffle_window: int = 8,
        balance_by: str | None = None,
        balance_exponent: float = 1.0,
        **unknown: Any,
    ):
        super().__init__()
        if unknown:
            check_former_arguments(type(self), unknown)
            raise TypeError(f"{type(self).__name__} got an unexpected keyword argument '{next(iter(unknown))}'")
        if on_error not in ON_ERROR:
            raise ValueError(f"datamodule.on_error: got '{on_error}', wanted one of {', '.join(ON_ERROR)}")
        if shuffle_window < 1:
            raise ValueError(f"datamodule.shuffle_window: got {shuffle_window}, wanted at least 1 shard")
        self.batching = Batching(batch_size, length_limits(max_batch_length), num_buckets)
        self.mixing = Mixing(mixing, temperature, homogeneous_batches)
        self.balance = Balance(balance_by, balance_exponent)
        self.shuffle_window = shuffle_window
        self.num_workers = num_workers
        self.on_error = on_error
        self.split = Split(**(split or {}))
        self.seed = seed
        self.wanted = inputs
        self.shuffle = shuffle
        self.readers = dict(readers or {})
        self.known = dict(known or {})
        self.trained = trained or not draw_split
        self.draw_split = draw_split
        self.columns: Mapping[str, Any] = {}  # as in conf/datamodule/manifest.yaml; kept with a trained model
        self.media_root: str | None = None  # the folder that paths are relative to; None: that of the table file
        self.transforms: dict[str, Transform] = {}
        self.stored: dict[str, Transform] = {}  # transforms that return precomputed features for a row index
        self._lengths: dict[str, np.ndarray] = {}
        self.training: Loader | None = None  # current training loader
        self.begun: dict[str, Any] | None = None  # state of the epoch in which a resumed run continues
        self.faults: dict[tuple[int, str], str] = {}
        self.notes: set[tuple[int, str]] = set()

    @abstractmethod
    def read(self) -> Table:
        """Read all rows into a table."""

    def reader(self, name: str) -> TargetCodec:
        """Return the codec of a target's cells."""
        return self.readers.get(name) or ClassTarget()

    def truth(self, name: str, row: int) -> Any:
        """Return the decoded target of a row; None if it is unlabelled."""
        if name in self.table.written:
            return self.table.written[name][row]
        return self.reader(name).decode(self.table.targets[name][row], self.table.spec.targets[name])

    def is_labelled(self, name: str, row: int) -> bool:
        """Return whether a row has a valid value of a target.

        Args:
            name: Name of the target.
            row: Index of the row in the table.
        """
        return (row, self.table.column(name, row)) not in self.faults and self.truth(name, row) is not None

    @cached_property
    def table(self) -> Table:
        """Return all rows, with the selected inputs in their usual order, after raising or recording errors."""
        table = self.read()
        keep_some(table, self.split)
        self.settle(table)
        if not self.trained:
            self.balance.check(table.spec.targets)
        names = sort_inputs(table.spec.inputs)
        for name in self.wanted or ():
            if name not in names:
                raise ValueError(f"datamodule.inputs: got '{name}', wanted some of {', '.join(names)}")
        names = [n for n in names if self.wanted is None or n in self.wanted]
        table.spec = type(table.spec)(inputs={n: table.spec.inputs[n] for n in names}, targets=table.spec.targets)
        return table

    @property
    def spec(self) -> DataSpec:
        """Return the facts about inputs and targets from which a model can be built."""
        return self.table.spec

    @property
    def source(self) -> str:
        """Return the name of the file or data set, for messages."""
        return self.table.source

    @property
    def ids(self) -> Sequence[str]:
        """Return the ID of every row."""
        return self.table.ids

    @property
    def splits(self) -> np.ndarray:
        """Return the split of every row, (N,) of str; "" for rows in no split."""
        return self.table.split

    @property
    def inputs(self) -> Mapping[str, Sequence[Any]]:
        """Return the raw values of each input by row; None or "" if the row lacks the input."""
        return self.table.inputs

    @property
    def targets(self) -> Mapping[str, Any]:
        """Return the encoded targets by name: (N, ...), or a list of N tensors; see `EncodedTarget`."""
        return self.table.targets

    def row_name(self, row: int) -> str:
        """Return the file, number and ID of a row, for messages."""
        return self.table.name(row)

    def column_of(self, name: str, row: int) -> str:
        """Return the column of an input or target in a row, for messages and `faults`."""
        return self.table.column(name, row)

    def input_digests(self, name: str) -> Iterator[bytes]:
        """Yield for each row some bytes that distinguish the raw value of an input from other values."""
        files = self.spec.inputs[name].modality != "text"
        return identities(self.inputs[name], files, self.table.files.get(name))

    def bind(
        self,
        transforms: Mapping[str, Transform],
        spec: DataSpec | None = None,
        codecs: Mapping[str, TargetCodec] | None = None,
    ) -> Self:
        """Return a shallow copy of this data for one model, so that one data object can serve several models.

        The raw rows are shared. Targets are encoded again if a trained model has other classes than this data.

        Args:
            transforms: Input name to the Transform of the model.
            spec: Inputs and targets of a trained model; targets that it lacks are not read. None: the model is to be
                trained on this data.
            codecs: Target name to the codec of its cells; None: the codecs of this data.
        """
        bound = copy(self)
        bound.trainer = bound.training = bound.begun = None
        bound.faults, bound.notes = dict(self.faults), set(self.notes)
        bound.readers = dict(self.readers if codecs is None else codecs)
        if spec is not None:
            bound.known, bound.trained = dict(spec.targets), True
        same = (bound.known, bound.trained, bound.readers) == (self.known, self.trained, self.readers)
        if same:
            bound.__dict__["table"] = replace(self.table, inputs=dict(self.table.inputs))
        else:
            bound.__dict__.pop("table", None)
            bound.__dict__.pop("_fingerprint", None)
        bound.use(transforms)
        return bound

    def without_drawn_split(self, spec: DataSpec, codecs: Mapping[str, TargetCodec]) -> Self:
        """Return this data for a trained model, with all rows as test rows if no column states their split.

        Args:
            spec: Inputs and targets of the trained model.
            codecs: Target name to the codec of its cells.

        Returns:
            This data itself if its split was not drawn, otherwise a copy that is read again.
        """
        return reread_without_split(self, spec, codecs) if self.table.drawn else self

    def use(self, transforms: Mapping[str, Transform]) -> None:
        """Set the transforms of the inputs. An input that the data lacks is absent from every row.

        Args:
            transforms: Input name to transform.

        Raises:
            ValueError: If `max_batch_length` names an input without a length.
        """
        self.transforms, self.stored, self._lengths = dict(transforms), {}, {}
        for name in self.batching.budget:
            timed = [n for n, data in self.spec.inputs.items() if get_modality(data.modality).is_sequence]
            if name not in self.transforms or name not in timed:
                raise ValueError(
                    f"datamodule.max_batch_length.{name}: the inputs that have a length are {', '.join(timed)}"
                )
        for name in self.transforms:
            self.table.inputs.setdefault(name, [None] * len(self.table.ids))

    def lengths(self, names: Iterable[str]) -> dict[str, np.ndarray]:
        """Return the length of every row, (N,), for some inputs; see `Transform.lengths`.

        Raises:
            ValueError: If a row is longer than `max_batch_length`.
        """
        for name in [n for n in names if n not in self._lengths]:
            self._lengths[name] = found = measure_lengths(self.table, name, self.transforms[name])
            row, most = int(found.argmax()), self.batching.budget.get(name, np.inf)
            if found[row] > most:
                raise ValueError(
                    f"{self.table.name(row)}: its {name} is {found[row]:g} long, more than "
                    f"datamodule.max_batch_length.{name}={most:g} (windows and padding count); raise it, or set "
                    f"datamodule.transforms.{name}.max_length and .overflow=truncate"
                )
        return {name: self._lengths[name] for name in names}

    def rows(self, split: str) -> np.ndarray:
        """Return the indices of the rows of a split, or with "all" of every split.

        Raises:
            ValueError: If there is no such split, or if it is empty.
        """
        return rows_of_split(self.table, split, bool(self.columns))

    def loader(self, split: str, train: bool = False, only: Sequence[str] | None = None) -> Loader:
        """Return a loader of the batches of a split, for the rows of this process.

        Args:
            split: "train", "val", "test" or "all".
            train: Whether to shuffle and augment the rows.
            only: Names of the inputs to load as raw values, in batches of rows with similar length; None: full batches.
        """
        world, rank = (self.trainer.world_size, self.trainer.global_rank) if self.trainer else (1, 0)
        dataset = self.dataset(train, only, None if only else self.stored)
        batching = Batching(self.batching.batch_size, dict.fromkeys(only, 1e18), 64) if only else self.batching
        rows, shard = self.rows(split), self.table.shard
        loader = Loader(
            dataset,
            batch_sampler=Order(
                rows,
                batching,
                train and self.shuffle,
                self.seed,
                rank,
                world,
                self.lengths,
                shards=None if shard is None else Shards(shard[rows], self.shuffle_window),
                mixture=mix_rows(self.table, rows, self.mixing, self.balance, self.truth) if train else None,
            ),
            num_workers=self.num_workers,
            collate_fn=partial(join, transforms=dataset.transforms),
            persistent_workers=self.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
            worker_init_fn=begin_worker,
        )
        loader.keep = self.keep
        return loader

    def batch(self, rows: Sequence[int], only: Sequence[str] | None = None) -> Batch:
        """Return some rows as one finished batch, encoded in this process and without augmentation.

        Args:
            rows: Indices of the rows.
            only: Names of the inputs to load; None: all inputs.
        """
        dataset = self.dataset(False, only)
        return self.finish(join([dataset[Draw(row, 0)] for row in rows], dataset.transforms).batch)

    def finish(self, batch: Batch) -> Batch:
        """Return a batch as the encoders expect it, on its current device."""
        return finish(batch, self.transforms)

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        assert self.trainer is not None
        done = self.finish(batch)
        converted = self.trainer.precision_plugin.convert_input(done)  # to float64 with precision=64-true
        # Keep float64 targets, because bfloat16 has three digits, too few for a Unix time for example.
        kept = {name: target for name, target in done.targets.items() if target.dtype == torch.float64}
        return converted._replace(targets=converted.targets | kept)

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        if device.type == "mps":  # Apple's GPUs have no float64
            narrow = {n: t.float() if t.dtype == torch.float64 else t for n, t in batch.targets.items()}
            batch = batch._replace(targets=narrow)
        return super().transfer_batch_to_device(batch, device, dataloader_idx)

    def dataset(self, train: bool, only: Sequence[str] | None, stored: Mapping[str, Transform] | None = None) -> Rows:
        """Return the data set of all rows, from which a loader draws.

        If no transforms of a model are set, the default transforms of the inputs are used.

        Args:
            train: Whether to augment rows.
            only: Names of the inputs to load; None: all inputs and the targets.
            stored: Input name to a transform that returns precomputed features.
        """
        if not self.transforms:
            self.use(default_transforms(self.spec, self.readers))
        transforms = {name: t for name, t in self.transforms.items() if only is None or name in only}
        return Rows(self.table, transforms, self.on_error, train, stored, self.readers, only is None)

    def train_dataloader(self) -> Loader:
        loader = self.loader("train", train=True)
        changed = False
        if self.begun is not None:
            loader.order.load_state_dict(self.begun)
            changed = loader.order.changed()
        if self.trainer:
            # The number of batches can differ between epochs: after a resume with another number of processes, and if
            # each epoch draws other rows.
            differs = loader.order.mixture is not None and bool(self.batching.budget)
            loader.order.set_epoch(self.trainer.current_epoch)
            self.trainer.reload_dataloaders_every_n_epochs = int(changed or differs)  # type: ignore[attr-defined]
        self.training, self.begun = loader, None
        return loader

    @property
    def fingerprint(self) -> Fingerprint:
        """Return the digests of the rows of each split."""
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> Fingerprint:
        return fingerprint(self.table)

    def state_dict(self) -> dict[str, Any]:
        """Return the state for a checkpoint: the position in the epoch, and a digest of the rows of each split.

        It is not stored by the loader, because Lightning asks a loader for its length before it restores its state.
        """
        order = {} if self.training is None else self.training.order.state_dict(self.training.taken)
        return order | {"fingerprint": self.fingerprint.digests()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the position in the epoch from a checkpoint.

        Raises:
            ValueError: If the rows differ from those of the checkpoint.
        """
        state = dict(state_dict)
        before = state.pop("fingerprint", None)  # older checkpoints have none
        now = self.fingerprint.digests()
        if before is not None and before != now:
            changed = ", ".join(describe_changed_splits(before, now))
            raise ValueError(
                f"{self.table.source}: the rows of {changed} are others than those that the checkpoint was trained on; "
                "a run keeps its data: bring it back as it was, or start another run=NAME"
            )
        self.begun = state or None

    def progress(self, state: Mapping[str, Any]) -> tuple[int, int, int]:
        """Return the position of a run in an epoch from a `state_dict`.

        Returns:
            The epoch, the number of its batches that were trained on, and the number of its batches if the run resumes
            now.
        """
        order = self.loader("train", train=True).order
        order.load_state_dict(state)
        order.set_epoch(state["epoch"])
        return order.epoch, sum(part.batches for part in order.done()), len(order)

    def val_dataloader(self) -> Loader:
        return self.loader("val")

    def test_dataloader(self) -> Loader:
        return self.loader("test")

    def settle(self, table: Table) -> None:
        """Raise or record the errors that were found while reading a table, in the order of the rows."""
        others = len({fault.row for fault in table.faults}) - 1
        for fault in sorted(table.faults):
            self.record(fault, table, others)

    def keep(self, loaded: Loaded) -> None:
        """Raise or record the errors that a worker found in a batch, and note changed (such as truncated) rows."""
        for fault in loaded.faults:
            self.record(fault, self.table)
        for row, what in loaded.long:
            kind, _, name = what.partition("/")
            if kind == "target_truncated" and not any(what == known for _, known in self.notes):
                say(
                    f"{self.table.name(row)}: its '{name}' lies in what was cut off from the input; such rows are "
                    "measured against the whole target, and data/target_truncated counts them"
                )
            self.notes.add((row, what))

    def record(self, fault: Fault, table: Table, others: int = 0) -> None:
        """Record an error of a cell, or raise it if `on_error` is "raise".

        Args:
            fault: The error.
            table: The table.
            others: Number of other rows that are known to be invalid, for the message.

        Raises:
            ValueError: If `on_error` is "raise", or if the error has another remedy than the data.
        """
        error = describe_fault(fault, table, self.on_error, others)
        if error is not None:
            raise ValueError(error)
        self.faults[fault.row, fault.column] = printable(fault.message)

    def write_errors(self, path: Path) -> None:
        """Write a CSV file of every invalid cell, atomically."""
        write_faults(path, list_faults(self.faults, self.table))
