"""The table of a data module: raw inputs and encoded targets by row, before inputs are decoded."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from mm.types import DataSpec

SPLITS = ("train", "val", "test")
Cells = dict[str, Any]  # column name -> its cells by row, a list or a TextColumn
ON_ERROR = ("raise", "drop", "missing")


class Fault(NamedTuple):
    """An error of one cell of the data."""

    row: int
    column: str
    message: str
    fix: str = ""  # where the data is not at fault, which then is raised whatever on_error says


class Origin(NamedTuple):
    """One of several files of a table, whose rows follow one another."""

    source: str  # as errors name it
    first: int  # its first row
    columns: dict[str, str]  # input name -> the column that errors name
    weight: float  # of its rows in training, as in mm/data/mixing.py


@dataclass
class Table:
    """Rows of raw inputs and encoded targets."""

    inputs: dict[str, Any]  # input name -> a sequence by row: a text, a path, an array; None or "": absent
    targets: dict[str, Any]  # target name -> (N, ...), or a list of tensors, as in EncodedTarget
    ids: Sequence[str]
    split: np.ndarray  # (N,) of str: train, val, test; "": in no split
    spec: DataSpec
    source: str  # the file or set that errors name
    written: dict[str, Sequence[Any]] = field(default_factory=dict)  # target name -> as in EncodedTarget, of some
    columns: dict[str, str] = field(default_factory=dict)  # input or target name -> the column that errors name
    faults: list[Fault] = field(default_factory=list)  # found while reading, under on_error=drop or missing
    origins: list[Origin] = field(default_factory=list)  # of a mixture: its files, at least two
    kept: bool = False  # whether the training rows are those that datamodule.split.rows keeps
    files: dict[str, np.ndarray] = field(default_factory=dict)  # input name -> (N, 3) as in paths.stat_files
    groups: np.ndarray | None = None  # (N,) of str, the group of each row; None: rows have none
    shard: np.ndarray | None = None  # (N,) the shard that each row lies in; None: all rows are equally at hand
    folders: list[str] = field(default_factory=list)  # that the paths of its media files begin with

    def origin(self, row: int) -> Origin:
        """Return the file that a row belongs to."""
        if not self.origins:
            return Origin(self.source, 0, self.columns, 1.0)
        return self.origins[bisect_right(self.origins, row, key=lambda origin: origin.first) - 1]

    def name(self, row: int) -> str:
        """Return the file, index and ID of a row, for messages."""
        origin = self.origin(row)
        return f"{origin.source}: row {row - origin.first} (id '{self.ids[row].removeprefix(f'{origin.source}:')}')"

    def column(self, name: str, row: int) -> str:
        """Return the column of an input or target in a row, for messages."""
        return self.origin(row).columns.get(name, name)
