"""What tasks, callbacks and evaluation see of data."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, Self

import numpy as np

from mm.fingerprints import Fingerprint
from mm.types import Batch, DataSpec, TargetCodec, Transform

if TYPE_CHECKING:
    from pathlib import Path

    from lightning import Trainer
    from torch.utils.data import DataLoader


class DataSource(Protocol):
    """What tasks, callbacks and evaluation see of data: rows of raw inputs and targets, read into batches.

    Every `DataModule` is one. A LightningDataModule of your own is one once it has these members.

    Attributes:
        transforms: Input name to the Transform that reads its raw values.
        stored: Input name to a Transform that takes the row's number and gives features that were computed before.
        faults: (row, column) to what is wrong with the cell, for rows that were not raised.
        notes: (row, what was changed or left out), such as `(3, "cut/text")`; see `EncodedInput`.
    """

    transforms: dict[str, Transform]
    stored: dict[str, Transform]
    faults: dict[tuple[int, str], str]
    notes: set[tuple[int, str]]

    @property
    def spec(self) -> DataSpec:
        """Return what is known of the inputs and targets before a model exists."""
        ...

    @property
    def source(self) -> str:
        """Return the name of the file or data set, as messages state it."""
        ...

    @property
    def ids(self) -> Sequence[str]:
        """Return the id of every row."""
        ...

    @property
    def splits(self) -> np.ndarray:
        """Return the split of every row: (N,) of str, "" for rows in no split."""
        ...

    @property
    def inputs(self) -> Mapping[str, Sequence[Any]]:
        """Return input name -> raw values by row; None or "" where a row lacks the input."""
        ...

    @property
    def targets(self) -> Mapping[str, Any]:
        """Return target name -> encoded targets: (N, ...), or a list of N tensors; see `EncodedTarget`."""
        ...

    @property
    def fingerprint(self) -> Fingerprint:
        """Return digests of the rows of each split."""
        ...

    def bind(
        self,
        transforms: Mapping[str, Transform],
        spec: DataSpec | None = None,
        codecs: Mapping[str, TargetCodec] | None = None,
    ) -> Self:
        """Return a copy of this data for one model, whose transforms read the inputs.

        Args:
            transforms: Input name to the Transform of the model.
            spec: What a trained model knows of its inputs and targets; None: the classes are those of this data.
            codecs: Target name to how its cells are read; None: as this data reads them.
        """
        ...

    def rows(self, split: str) -> np.ndarray:
        """Return the row numbers of a split, or of all with "all"; raise ValueError where there are none."""
        ...

    def loader(self, split: str, train: bool = False, only: Sequence[str] | None = None) -> "DataLoader[Any]":
        """Return batches of a split, this process's share.

        Args:
            split: train, val, test or all.
            train: Whether rows are shuffled and augmented.
            only: Some of the inputs, as raw values, in batches of similar length.
        """
        ...

    def batch(self, rows: Sequence[int], only: Sequence[str] | None = None) -> Batch:
        """Return some rows as one finished batch, read here and now as validation reads them."""
        ...

    def finish(self, batch: Batch) -> Batch:
        """Return a batch as the encoders read it, on the device where it is."""
        ...

    def lengths(self, names: Iterable[str]) -> dict[str, np.ndarray]:
        """Return the length of every row (N,) for some inputs; see `Transform.lengths`."""
        ...

    def truth(self, name: str, row: int) -> Any:
        """Return a row's target as a person writes it; None where it is unlabelled."""
        ...

    def is_labelled(self, name: str, row: int) -> bool:
        """Return whether a row has a target that could be read."""
        ...

    def row_name(self, row: int) -> str:
        """Return a row's file, number and id, as messages state them."""
        ...

    def column_of(self, name: str, row: int) -> str:
        """Return the column of an input or a target, as messages and `faults` name it."""
        ...

    def input_digests(self, name: str) -> Iterator[bytes]:
        """Yield what distinguishes the raw values of an input from those of other data, row after row."""
        ...

    def progress(self, state: Mapping[str, Any]) -> tuple[int, int, int]:
        """Return the epoch of a checkpoint's state, its batches trained so far, and its batches if it goes on now."""
        ...

    def write_errors(self, path: "Path") -> None:
        """Write every row of `faults` as CSV."""
        ...


def data_source(trainer: "Trainer") -> DataSource:
    """Return the data that a trainer runs on.

    Raises:
        ValueError: If the trainer was given loaders instead of a data module.
    """
    data: DataSource | None = getattr(trainer, "datamodule", None)
    if data is None:
        raise ValueError("trainer: got loaders without a data module, wanted trainer.fit(task, datamodule=data)")
    return data


def check_data_source(data: object) -> None:
    """Check that an object has the members of a `DataSource`.

    Raises:
        ValueError: If it lacks some; the message names them.
    """
    members = [*DataSource.__annotations__, *(name for name in vars(DataSource) if not name.startswith("_"))]
    there = dir(data)
    lacking = [name for name in dict.fromkeys(members) if name not in there]
    if lacking:
        raise ValueError(
            f"data: {type(data).__qualname__} lacks {', '.join(lacking)}; wanted a mm.data_source.DataSource: "
            "derive it from mm.data.module.DataModule, or add these members"
        )
