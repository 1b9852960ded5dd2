"""The table of a data module: raw inputs and encoded targets by row, before inputs are decoded."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from mm.types import DataSpec

SPLITS = ("train", "val", "test")
Cells = dict[str, Any]  # column name to its cells by row, a list or a TextColumn
ON_ERROR = ("raise", "drop", "missing")


class Fault(NamedTuple):
    """An error of one cell of the data."""

    row: int
    column: str
    message: str
    fix: str = ""  # remedy if the data is not at fault; such an error is raised whatever on_error is


class Origin(NamedTuple):
    """One of several files of a table, whose rows follow one another."""

    source: str  # name of the file in messages
    first: int  # index of its first row in the table
    columns: dict[str, str]  # input name to column name, for messages
    weight: float  # weight of its rows in training, as in mm/data/mixing.py


@dataclass
class Table:
    """Rows of raw inputs and encoded targets."""

    inputs: dict[str, Any]  # input name to a sequence by row: a text, a path or an array; None or "": absent
    targets: dict[str, Any]  # target name to (N, ...), or a list of tensors, as in EncodedTarget
    ids: Sequence[str]
    split: np.ndarray  # (N,) of str: train, val, test; "": the row belongs to no split
    spec: DataSpec
    source: str  # name of the file or data set in messages
    written: dict[str, Sequence[Any]] = field(default_factory=dict)  # target name to cells, as in EncodedTarget
    columns: dict[str, str] = field(default_factory=dict)  # input or target name to column
    faults: list[Fault] = field(default_factory=list)  # errors found while reading
    origins: list[Origin] = field(default_factory=list)  # the files, if there are several
    drawn: bool = False  # whether the split of some rows was drawn, because no column states it
    kept: bool = False  # whether datamodule.split.rows was applied
    files: dict[str, np.ndarray] = field(default_factory=dict)  # input name to (N, 3), see stat_files
    groups: np.ndarray | None = None  # (N,) of str, the group of each row; None: rows have none
    shard: np.ndarray | None = None  # (N,) shard of each row; None: no shards
    folders: list[str] = field(default_factory=list)  # folders of its media files
    places: Sequence[str] | None = None  # where each row is in its file, such as "rows 4 to 6"; None: in its own row

    def origin(self, row: int) -> Origin:
        """Return the file that a row belongs to."""
        if not self.origins:
            return Origin(self.source, 0, self.columns, 1.0)
        return self.origins[bisect_right(self.origins, row, key=lambda origin: origin.first) - 1]

    def name(self, row: int) -> str:
        """Return the file, index and ID of a row, for messages."""
        origin = self.origin(row)
        place = f"row {row - origin.first}" if self.places is None else self.places[row]
        return f"{origin.source}: {place} (id '{self.ids[row].removeprefix(f'{origin.source}:')}')"

    def column(self, name: str, row: int) -> str:
        """Return the column of an input or target in a row, for messages."""
        return self.origin(row).columns.get(name, name)
