"""The interface of data for tasks, callbacks and evaluation."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from os import PathLike, fspath
from typing import TYPE_CHECKING, Any, Protocol, Self, runtime_checkable

import numpy as np

from mm.fingerprints import Fingerprint
from mm.protocols import Offers
from mm.types import Batch, DataSpec, TargetCodec, Transform

if TYPE_CHECKING:
    from pathlib import Path

    from lightning import Trainer
    from torch.utils.data import DataLoader


class DataSource(Protocol):
    """The interface of data for tasks, callbacks and evaluation: rows of raw inputs and targets, and batches of them.

    Every `DataModule` implements it. A LightningDataModule of your own implements it if it has these members.

    Attributes:
        transforms: Input name to the Transform that encodes its raw values.
        stored: Input name to a Transform that returns precomputed features for the index of a row.
        faults: (row, column) to the error of the cell, for rows whose errors were not raised.
        notes: Pairs of row and the name of a change, such as `(3, "truncated/text")`; see `EncodedInput`.
    """

    transforms: dict[str, Transform]
    stored: dict[str, Transform]
    faults: dict[tuple[int, str], str]
    notes: set[tuple[int, str]]

    @property
    def spec(self) -> DataSpec:
        """Return the facts about inputs and targets from which a model can be built."""
        ...

    @property
    def source(self) -> str:
        """Return the name of the file or data set, for messages."""
        ...

    @property
    def ids(self) -> Sequence[str]:
        """Return the ID of every row."""
        ...

    @property
    def splits(self) -> np.ndarray:
        """Return the split of every row, (N,) of str; "" for rows in no split."""
        ...

    @property
    def inputs(self) -> Mapping[str, Sequence[Any]]:
        """Return the raw values of each input by row; None or "" if the row lacks the input."""
        ...

    @property
    def targets(self) -> Mapping[str, Any]:
        """Return the encoded targets by name: (N, ...), or a list of N tensors; see `EncodedTarget`."""
        ...

    @property
    def fingerprint(self) -> Fingerprint:
        """Return the digests of the rows of each split."""
        ...

    def bind(
        self,
        transforms: Mapping[str, Transform],
        spec: DataSpec | None = None,
        codecs: Mapping[str, TargetCodec] | None = None,
    ) -> Self:
        """Return a copy of this data for a model, whose transforms encode the inputs.

        Args:
            transforms: Input name to the Transform of the model.
            spec: Inputs and targets of a trained model, with its classes and statistics; None: those of this data are
                used.
            codecs: Target name to the codec that encodes its cells; None: the codecs of this data.
        """
        ...

    def rows(self, split: str) -> np.ndarray:
        """Return the indices of the rows of a split, or of all rows with "all".

        Raises:
            ValueError: If there are no such rows.
        """
        ...

    def loader(self, split: str, train: bool = False, only: Sequence[str] | None = None) -> "DataLoader[Any]":
        """Return a loader of the batches of a split, for the rows of this process.

        Args:
            split: "train", "val", "test" or "all".
            train: Whether to shuffle and augment the rows.
            only: Names of the inputs to load as raw values, in batches of rows with similar length; None: full batches.
        """
        ...

    def batch(self, rows: Sequence[int], only: Sequence[str] | None = None) -> Batch:
        """Return some rows as one finished batch, encoded in this process and without augmentation.

        Args:
            rows: Indices of the rows.
            only: Names of the inputs to load; None: all inputs.
        """
        ...

    def finish(self, batch: Batch) -> Batch:
        """Return a batch as the encoders expect it, on its current device."""
        ...

    def lengths(self, names: Iterable[str]) -> dict[str, np.ndarray]:
        """Return the length of every row, (N,), for some inputs; see `Transform.lengths`."""
        ...

    def truth(self, name: str, row: int) -> Any:
        """Return the decoded target of a row; None if the row is unlabelled."""
        ...

    def is_labelled(self, name: str, row: int) -> bool:
        """Return whether a row has a valid value of a target."""
        ...

    def row_name(self, row: int) -> str:
        """Return the file, number and ID of a row, for messages."""
        ...

    def column_of(self, name: str, row: int) -> str:
        """Return the column of an input or target in a row, for messages and `faults`."""
        ...

    def input_digests(self, name: str) -> Iterator[bytes]:
        """Yield for each row some bytes that distinguish the raw value of an input from other values."""
        ...

    def progress(self, state: Mapping[str, Any]) -> tuple[int, int, int]:
        """Return the position of a run in an epoch from the state of a checkpoint.

        Args:
            state: State of the data in the checkpoint.

        Returns:
            The epoch, the number of its batches that were trained on, and the total number of its batches with the
            current batch size and number of processes.
        """
        ...

    def write_errors(self, path: "Path") -> None:
        """Write a CSV file with the rows of `faults`."""
        ...


@runtime_checkable
class DrawsSplits(Protocol, metaclass=Offers):
    """Data that draws the split of its rows by chance if no column states it. Every `DataModule` may do so."""

    def without_drawn_split(self, spec: DataSpec, codecs: Mapping[str, TargetCodec]) -> DataSource:
        """Return this data for a trained model, with all rows as test rows if no column states their split.

        Args:
            spec: Inputs and targets of the trained model.
            codecs: Target name to the codec of its cells.
        """
        ...


def data_source(trainer: "Trainer") -> DataSource:
    """Return the data of a Trainer.

    Raises:
        ValueError: If the Trainer was given loaders instead of a data module.
    """
    data: DataSource | None = getattr(trainer, "datamodule", None)
    if data is None:
        raise ValueError("trainer: got loaders without a data module, wanted trainer.fit(task, datamodule=data)")
    return data


def check_data_source(data: object) -> None:
    """Check that an object has all members of `DataSource`, or that a class has all its methods and properties.

    Args:
        data: A data source, or its class, whose objects may set the other members in their constructor.

    Raises:
        ValueError: If it is a path or a table, or if members are missing; the message names them.
    """
    check_not_table(data)
    is_class = isinstance(data, type)
    methods = [name for name in vars(DataSource) if not name.startswith("_")]
    members = methods if is_class else [*DataSource.__annotations__, *methods]
    there = dir(data)
    lacking = [name for name in dict.fromkeys(members) if name not in there]
    if lacking:
        kind = data if isinstance(data, type) else type(data)
        raise ValueError(
            f"data: {kind.__qualname__} lacks {', '.join(lacking)}; wanted a mm.data_source.DataSource: let it inherit "
            "mm.datamodules.Manifest or mm.data.DataModule, as docs/howto/own_dataset.md shows, or add these members"
        )


def check_not_table(data: object) -> None:
    """Raise a ValueError if an object is a path or a table in memory, from which `mm.Manifest` makes a data source."""
    if isinstance(data, str | PathLike):
        path = fspath(data)
        raise ValueError(f'data: got the path {path!r}, wanted a data module; write mm.Manifest("{path}", ...)')
    table = isinstance(data, list | tuple) or hasattr(data, "__arrow_c_stream__") or type(data).__name__ == "DataFrame"
    if table and not isinstance(data, type):
        kind = type(data).__name__
        raise ValueError(f"data: got a {kind}, which is a table, wanted a data module; write mm.Manifest(data, ...)")
