"""The rows of a data family, before anything is decoded."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from mm.types import DataSpec

SPLITS = ("train", "val", "test")
ON_ERROR = ("raise", "drop", "missing")


class Fault(NamedTuple):
    """Something wrong with one cell of the data."""

    row: int
    column: str
    message: str
    always: bool = False  # raised whatever on_error says: the data is not at fault


@dataclass
class Table:
    """Rows of raw inputs and encoded targets."""

    inputs: dict[str, Any]  # input name -> a sequence by row: a text, a path, an array; None or "": absent
    targets: dict[str, Tensor]  # target name -> (N, ...), unlabelled as in Batch
    ids: Sequence[str]
    split: np.ndarray  # (N,) of str: train, val, test; "": in no split
    spec: DataSpec
    source: str  # the file or set that errors name
    columns: dict[str, str] = field(default_factory=dict)  # input name -> the column that errors name
    faults: list[Fault] = field(default_factory=list)  # found while reading, under on_error=drop or missing

    def name(self, row: int) -> str:
        """A row as an error names it."""
        return f"{self.source}: row {row} (id '{self.ids[row]}')"
