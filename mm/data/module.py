"""What every datamodule shares: its table, splits, batches for each process, and what becomes of bad input."""

import csv
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
from mm.data.fingerprint import fingerprint, identities
from mm.data.loading import Loaded, Loader, Rows, begin_worker, join
from mm.data.mixing import Balance, Mixing, Mixture, rarest
from mm.data.sampling import Batching, Draw, Order, Shards
from mm.data.splitting import Split, keep_some
from mm.data.table import ON_ERROR, SPLITS, Fault, Table
from mm.files import whole
from mm.fingerprints import Fingerprint
from mm.messages import say
from mm.modalities import default_transforms, get_modality, sort_inputs
from mm.targets.classes import ClassTarget
from mm.types import Batch, DataSpec, TargetCodec, TargetData, Transform

FILLED = {"train": "lower datamodule.split.val or .test", "all": "there is no row to read"}  # an empty split's fix


class DataModule(LightningDataModule):
    """A LightningDataModule over a table of rows. A subclass gives `read`, the table.

    It is a `DataSource`. Without transforms of a model, which `use` and `bind` set, inputs are read as the default
    encoders of their modalities read them.

    Args:
        batch_size: Rows per process and step; with a budget, at most.
        num_workers: Processes that read rows.
        on_error: Of a row that can't be read: raise, drop, or missing (its input counts as absent).
        split: Parts `val` and `test` of the rows, their `seed`, and how many training `rows` to keep, where the data
            names no splits; default: 0.1 each.
        seed: Of the order of training rows and of augmentations.
        inputs: Names of those to use; default: all.
        shuffle: Whether training rows are shuffled, anew each epoch.
        readers: Target name to how its cells are read; default: as classes.
        known: Target name to what a trained model knows of it.
        trained: Whether the rows are for a model that knows what its inputs hold; targets that it does not know are
            not read.
        whole: As `trained`, and without a split column all rows are for testing.
        max_batch_length: Input name to the maximum number of tokens or seconds per process and step, padding included,
            such as {text: 4096, audio: 60}.
        num_buckets: Number of buckets of rows of similar length, for each input of `max_batch_length`.
        mixing: Shares of several files in an epoch: `proportional` to their rows, `uniform`, or `temperature`; each is
            multiplied with the weight of the file.
        temperature: Temperature T of `mixing=temperature`: shares are proportional to the rows to the power of 1 / T.
        homogeneous_batches: Whether every batch has rows of one of several files only.
        shuffle_window: Number of shards from which training rows are drawn at a time.
        balance_by: Name of a target by whose classes training rows are drawn; None: as they are.
        balance_exponent: 1: all classes equally often; 0.5: by the inverse square root of their counts; 0: as they are.

    Raises:
        ValueError: For wrong settings, and for wrong data once it is read, naming row, id, column and fix.
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
        whole: bool = False,
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
        self.batching = Batching(batch_size, limits(max_batch_length), num_buckets)
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
        self.trained = trained or whole
        self.whole = whole
        self.columns: Mapping[str, Any] = {}  # as in conf/datamodule/manifest.yaml; kept with a trained model
        self.media_root: str | None = None  # the folder that paths are relative to; None: that of the table file
        self.transforms: dict[str, Transform] = {}
        self.stored: dict[str, Transform] = {}  # take the row's number instead of the raw input: computed before
        self._lengths: dict[str, np.ndarray] = {}
        self.training: Loader | None = None  # the loader at work
        self.begun: dict[str, Any] | None = None  # the epoch that a resumed run goes on with
        self.faults: dict[tuple[int, str], str] = {}
        self.notes: set[tuple[int, str]] = set()

    @abstractmethod
    def read(self) -> Table:
        """All rows."""

    def reader(self, name: str) -> TargetCodec:
        """What reads the cells of a target."""
        return self.readers.get(name) or ClassTarget()

    def truth(self, name: str, row: int) -> Any:
        """A row's target, as a person writes it; None where unlabelled."""
        if name in self.table.written:
            return self.table.written[name][row]
        return self.reader(name).decode(self.table.targets[name][row], self.table.spec.targets[name])

    def is_labelled(self, name: str, row: int) -> bool:
        """Return whether a row has a target that could be read.

        Args:
            name: The target.
            row: The row's number in the table.
        """
        return (row, self.table.column(name, row)) not in self.faults and self.truth(name, row) is not None

    @cached_property
    def table(self) -> Table:
        """All rows, with the inputs that are wanted, in the usual order; what is wrong was raised or recorded."""
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
    def long(self) -> set[tuple[int, str]]:
        """Return `notes` by their former name."""
        return self.notes

    @long.setter
    def long(self, notes: set[tuple[int, str]]) -> None:
        self.notes = notes

    @property
    def spec(self) -> DataSpec:
        """Return what is known of the inputs and targets before a model exists."""
        return self.table.spec

    @property
    def source(self) -> str:
        """Return the name of the file or data set, as messages state it."""
        return self.table.source

    @property
    def ids(self) -> Sequence[str]:
        """Return the id of every row."""
        return self.table.ids

    @property
    def splits(self) -> np.ndarray:
        """Return the split of every row: (N,) of str, "" for rows in no split."""
        return self.table.split

    @property
    def inputs(self) -> Mapping[str, Sequence[Any]]:
        """Return input name -> raw values by row; None or "" where a row lacks the input."""
        return self.table.inputs

    @property
    def targets(self) -> Mapping[str, Any]:
        """Return target name -> encoded targets: (N, ...), or a list of N tensors; see `EncodedTarget`."""
        return self.table.targets

    def row_name(self, row: int) -> str:
        """Return a row's file, number and id, as messages state them."""
        return self.table.name(row)

    def column_of(self, name: str, row: int) -> str:
        """Return the column of an input or a target, as messages and `faults` name it."""
        return self.table.column(name, row)

    def input_digests(self, name: str) -> Iterator[bytes]:
        """Yield what distinguishes the raw values of an input from those of other data, row after row."""
        files = self.spec.inputs[name].modality != "text"
        return identities(self.inputs[name], files, self.table.files.get(name))

    def bind(
        self,
        transforms: Mapping[str, Transform],
        spec: DataSpec | None = None,
        codecs: Mapping[str, TargetCodec] | None = None,
    ) -> Self:
        """Return a shallow copy of this data for one model, so that one data object serves several models.

        The raw rows are shared. Targets are encoded again where a trained model knows other classes than this data.

        Args:
            transforms: Input name to the Transform of the model.
            spec: What a trained model knows of its inputs and targets; targets that it lacks are not read. None: the
                model is to be trained on this data.
            codecs: Target name to how its cells are read; None: as this data reads them.
        """
        bound = copy(self)
        bound.trainer = None
        bound.faults, bound.notes = dict(self.faults), set(self.notes)
        bound.training = bound.begun = None
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

    def use(self, transforms: Mapping[str, Transform]) -> None:
        """Read these inputs by these transforms; one that the data lacks is absent from every row."""
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
        """Of every row, for some inputs. Errors: ValueError where there is no such input, or one row has no room."""
        for name in [n for n in names if n not in self._lengths]:
            self._lengths[name] = found = self.measure(name)
            row, most = int(found.argmax()), self.batching.budget.get(name, np.inf)
            if found[row] > most:
                raise ValueError(
                    f"{self.table.name(row)}: its {name} is {found[row]:g} long, more than "
                    f"datamodule.max_batch_length.{name}={most:g} (windows and padding count); raise it, or set "
                    f"datamodule.transforms.{name}.max_length and .overflow=truncate"
                )
        return {name: self._lengths[name] for name in names}

    def measure(self, name: str) -> np.ndarray:
        """Lengths of an input, one shard after the other."""
        raw, count = self.table.inputs[name], len(self.table.ids)
        order = np.arange(count) if self.table.shard is None else np.argsort(self.table.shard, kind="stable")
        found = np.zeros(count)
        for part in np.array_split(order, count // 65_536 + 1):  # texts are read for it, not all at once
            found[part] = self.transforms[name].lengths([raw[row] for row in part.tolist()])
        return found

    def rows(self, split: str) -> np.ndarray:
        """Rows of a split; "all": of every split. Errors: ValueError where there is none, or no such split."""
        table = self.table
        if split not in (*SPLITS, "all"):
            raise ValueError(f"split: got '{split}', wanted one of {', '.join(SPLITS)}, all")
        rows = np.flatnonzero(table.split != "" if split == "all" else table.split == split)
        if not len(rows):
            counts = ", ".join(f"{name} {int((table.split == name).sum())}" for name in SPLITS)
            raise ValueError(
                f"{table.source}: the split '{split}' is empty (rows: {counts}); {one_row_each(table)}"
                f"{FILLED.get(split, f'set datamodule.split.{split} above 0')}"
                f"{', or name the column of splits with datamodule.columns.split' if self.columns else ''}"
            )
        return rows

    def loader(self, split: str, train: bool = False, only: Sequence[str] | None = None) -> Loader:
        """Batches of a split, this process's share.

        train: shuffled and augmented; only: some of the inputs, raw, and rows of similar length together.
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
                mixture=self.mixture(rows) if train else None,
            ),
            num_workers=self.num_workers,
            collate_fn=partial(join, transforms=dataset.transforms),
            persistent_workers=self.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
            worker_init_fn=begin_worker,
        )
        loader.keep = self.keep
        return loader

    def mixture(self, rows: np.ndarray) -> Mixture | None:
        """Of training rows. Errors: ValueError where a file, or a class of one, would never be drawn."""
        files = self.files(rows)
        if self.balance.target is None:
            return files
        if files is None:
            files = Mixture(np.zeros(len(rows), dtype=np.int64), [len(rows)], False)
        name = self.balance.target
        kind = self.table.spec.targets[name].kind
        label: np.ndarray = (
            self.table.targets[name][rows].numpy()
            if kind == "class"
            else rarest([self.truth(name, row) for row in rows.tolist()], kind)
        )
        stratum, counts = self.balance.strata(label, files.source, files.counts)
        for row, count in zip(rows[np.unique(stratum, return_index=True)[1]].tolist(), counts, strict=True):
            if not count:
                raise ValueError(
                    f"datamodule.balance_by: {self.table.origin(row).source} has so few rows of "
                    f"'{self.truth(name, row)}' that none of them is in an epoch; raise its weight"
                )
        return replace(files, counts=counts, stratum=stratum)

    def files(self, rows: np.ndarray) -> Mixture | None:
        """Of several files."""
        origins = self.table.origins
        if not origins:
            return None
        source = np.searchsorted([origin.first for origin in origins], rows, side="right") - 1
        sizes = np.bincount(source, minlength=len(origins)).tolist()
        counts = self.mixing.counts(sizes, [origin.weight for origin in origins])
        for origin, size, count in zip(origins, sizes, counts):
            if size and not count:
                raise ValueError(
                    f"datamodule.path: {origin.source} would make up none of the {len(rows)} rows of an epoch; raise "
                    "its weight"
                )
        return Mixture(source, counts, self.mixing.homogeneous_batches)

    def batch(self, rows: Sequence[int], only: Sequence[str] | None = None) -> Batch:
        """These rows, read raw, here and now, as validation reads them. only: some of the inputs."""
        dataset = self.dataset(False, only)
        return self.finish(join([dataset[Draw(row, 0)] for row in rows], dataset.transforms).batch)

    def finish(self, batch: Batch) -> Batch:
        """As the encoders read it, on the device where it is."""
        return finish(batch, self.transforms)

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        assert self.trainer is not None
        done = self.finish(batch)
        converted = self.trainer.precision_plugin.convert_input(done)  # float64 under precision=64-true
        # Targets of float64 stay so: bfloat16 has three digits, which is not enough for a Unix time.
        kept = {name: target for name, target in done.targets.items() if target.dtype == torch.float64}
        return converted._replace(targets=converted.targets | kept)

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        if device.type == "mps":  # Apple's GPUs have no float64
            narrow = {n: t.float() if t.dtype == torch.float64 else t for n, t in batch.targets.items()}
            batch = batch._replace(targets=narrow)
        return super().transfer_batch_to_device(batch, device, dataloader_idx)

    def dataset(self, train: bool, only: Sequence[str] | None, stored: Mapping[str, Transform] | None = None) -> Rows:
        """Return all rows, of which a loader draws. Without transforms of a model the inputs' defaults are bound."""
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
            # An epoch that goes on in another number of processes has a length of its own, and so has one whose rows
            # are others than those of the epoch before.
            differs = loader.order.mixture is not None and bool(self.batching.budget)
            loader.order.set_epoch(self.trainer.current_epoch)
            self.trainer.reload_dataloaders_every_n_epochs = int(changed or differs)  # type: ignore[attr-defined]
        self.training, self.begun = loader, None
        return loader

    @property
    def fingerprint(self) -> Fingerprint:
        """Digests of the rows of each split."""
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> Fingerprint:
        return fingerprint(self.table)

    def state_dict(self) -> dict[str, Any]:
        """Kept in every checkpoint: where the epoch stands, and a digest of each split's rows.

        Here, and not in the loader, whose state Lightning restores after it has asked for its length.
        """
        order = {} if self.training is None else self.training.order.state_dict(self.training.taken)
        return order | {"fingerprint": self.fingerprint.digests()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Errors: ValueError where the rows are others than those of the checkpoint."""
        state = dict(state_dict)
        before = state.pop("fingerprint", None)  # older checkpoints have none
        now = self.fingerprint.digests()
        if before is not None and before != now:
            counts = {name: [x.get(name, "0:").split(":")[0] for x in (before, now)] for name in SPLITS}
            changed = [
                f"{name} ({' then, '.join(counts[name])} now)" for name in SPLITS if before.get(name) != now.get(name)
            ]
            raise ValueError(
                f"{self.table.source}: the rows of {', '.join(changed)} are others than those that the checkpoint was "
                "trained on; a run keeps its data: bring it back as it was, or start another run=NAME"
            )
        self.begun = state or None

    def progress(self, state: Mapping[str, Any]) -> tuple[int, int, int]:
        """Return the epoch of a `state_dict`, its batches trained so far, and its batches if it goes on now."""
        order = self.loader("train", train=True).order
        order.load_state_dict(state)
        order.set_epoch(state["epoch"])
        return order.epoch, sum(part.batches for part in order.done()), len(order)

    def val_dataloader(self) -> Loader:
        return self.loader("val")

    def test_dataloader(self) -> Loader:
        return self.loader("test")

    def settle(self, table: Table) -> None:
        """Raise or record what was found wrong while reading, the first row first."""
        others = len({fault.row for fault in table.faults}) - 1
        for fault in sorted(table.faults):
            self.record(fault, table, others)

    def keep(self, loaded: Loaded) -> None:
        """Raise or record what a worker found wrong, note what was too long."""
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
        """others: how many more rows are known to be wrong. Errors: ValueError under on_error=raise."""
        message = printable(fault.message)
        where = printable(f"{table.name(fault.row)}, column '{fault.column}': {message}")
        if fault.fix:
            raise ValueError(f"{where}. {fault.fix}")
        if self.on_error == "raise":
            more = f" ({others} more rows are wrong)" if others else ""
            raise ValueError(
                f"{where}{more}. Mend the row, or set datamodule.on_error=drop (leave out such rows) or "
                f"datamodule.on_error=missing (take the cell as empty)"
            )
        self.faults[fault.row, fault.column] = message

    def write_errors(self, path: Path) -> None:
        """Every affected row as CSV, written beside its name and renamed."""
        with whole(path) as part, part.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:
            writer = csv.writer(file)
            writer.writerow(["row", "id", "split", "column", "error"])
            for (row, column), message in sorted(self.faults.items()):
                writer.writerow([row, self.table.ids[row], self.table.split[row], column, message])


def printable(text: str) -> str:
    """Return a text in which bytes of cells that are no UTF-8 are escaped: no terminal and no file takes them."""
    return text.encode("utf-8", "backslashreplace").decode()


def one_row_each(table: Table) -> str:
    """Why a split that was drawn is empty, where each class keeps its only row for training; to begin a fix."""
    for name, data in table.spec.targets.items():
        counts = data.facts.get("counts", ())
        if data.kind == "class" and len(counts) > 1 and max(counts) == 1:
            return (
                f"each of the {len(counts)} classes of '{table.columns.get(name, name)}' has a single row, which "
                "trains: is it a number (model/heads=regression), or an identifier? Else "
            )
    return ""


def limits(lengths: Any) -> dict[str, float]:
    """Return the maximum length of each input that has one; raise a ValueError where this is no mapping."""
    if not isinstance(lengths, Mapping | None):
        raise ValueError(
            f"datamodule.max_batch_length: got {lengths}, wanted an input's name with its own, as {{text: 4096}}"
        )
    return {name: most for name, most in (lengths or {}).items() if most is not None}
