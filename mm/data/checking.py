"""Check of a complete data set: every cell is read once, and every fault is listed."""

import csv
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from torch.utils.data import DataLoader, Dataset

from mm.data.loading import Rows, begin_worker
from mm.data.module import DataModule
from mm.data.sampling import Draw
from mm.data.table import Fault
from mm.files import whole
from mm.reports import Report, Table
from mm.types import Transform

COLUMNS = ("row", "id", "split", "file", "column", "reason")


class DataFault(NamedTuple):
    """One cell that can't be read.

    Attributes:
        row: Index of the row in its file, from 0.
        id: ID of the row.
        split: Split of the row; "" if it belongs to no split.
        file: File or data set of the row.
        column: The column of the cell.
        reason: Description of the fault.
    """

    row: int
    id: str
    split: str
    file: str
    column: str
    reason: str


@dataclass(frozen=True, repr=False)
class DataReport(Report):
    """All faults of a data set, as found by `check_data`.

    Attributes:
        source: Name of the file or data set.
        num_rows: Number of rows that were read.
        faults: The cells that can't be read, by row.
    """

    source: str
    num_rows: int
    faults: Sequence[DataFault]

    @property
    def passed(self) -> bool:
        """Return whether every cell could be read."""
        return not self.faults

    @property
    def num_faulty_rows(self) -> int:
        """Return the number of rows of which at least one cell can't be read."""
        return len({(fault.file, fault.row) for fault in self.faults})

    @property
    def metrics(self) -> Mapping[str, float]:  # type: ignore[override]
        """Return `data/rows`, `data/faulty_rows` and `data/faults`."""
        return {
            "data/rows": self.num_rows,
            "data/faulty_rows": self.num_faulty_rows,
            "data/faults": len(self.faults),
        }

    def summary(self) -> str:
        """Return the counts in one sentence."""
        if self.passed:
            return f"{self.source}: all {self.num_rows:,} rows can be read"
        noun = "fault" if len(self.faults) == 1 else "faults"
        return f"{self.source}: {len(self.faults):,} {noun} in {self.num_faulty_rows:,} of {self.num_rows:,} rows"

    def table(self) -> Table:
        """Return a row per fault."""
        return Table(COLUMNS, self.faults, self.summary())

    def save(self, folder: str | Path) -> Path:
        """Write metrics.json and, with a line per fault, errors.csv into a folder."""
        folder = super().save(folder)
        with whole(folder / "errors.csv") as part, part.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([COLUMNS, *self.faults])
        return folder


class FaultsOfRows(Dataset[list[Fault]]):
    """Data set of the faults of each row, read as in validation; the tensors are discarded."""

    def __init__(self, rows: Rows):
        self.rows = rows

    def __getitem__(self, row: int) -> list[Fault]:
        return self.rows[Draw(row, 0)].faults


def check_data(data: DataModule, transforms: Mapping[str, Transform] | None = None) -> DataReport:
    """Read every row of a data set once and list every cell that can't be read, instead of stopping at the first.

    Every fault that training would meet under `on_error=raise` is listed: files that are missing or damaged, texts that
    are not UTF-8, targets that can't be read, IDs that are empty or not unique, unknown split names. A fault of the
    whole file, such as a column that does not exist, is an error.

    Args:
        data: The data. It is not changed.
        transforms: Input name to the transform that reads it; None: those of the data, or the default ones.

    Returns:
        The report, whose `passed` says whether there is no fault.

    Raises:
        ValueError: If the rows can't be read as a whole.

    Example:
        >>> import mm
        >>> rows = [{"text": "fine", "price": "12"}, {"text": "bad", "price": "a lot"}] * 8
        >>> from mm.targets.regression import RegressionTarget
        >>> data = mm.Manifest(rows, targets=["price"], readers={"price": RegressionTarget()}, num_workers=0)
        >>> mm.check_data(data).num_faulty_rows
        8
    """
    data = copy(data)
    data.on_error, data.faults, data.notes = "missing", {}, set()
    data.__dict__.pop("table", None)  # what was read under another on_error may lack the faulty rows
    table = data.table
    if transforms or data.transforms:
        data.use(transforms or data.transforms)
    faulty = {row for row, _ in data.faults}
    rows = [row for row, split in enumerate(table.split) if split != "" or row in faulty]
    loader: DataLoader[list[Fault]] = DataLoader(
        FaultsOfRows(data.dataset(False, None)),
        sampler=rows,
        batch_size=None,
        num_workers=data.num_workers,
        worker_init_fn=begin_worker,
    )
    for faults in loader:
        for fault in faults:
            data.record(fault, table)
    found = []
    for (row, column), reason in sorted(data.faults.items()):
        origin = table.origin(row)
        one = table.ids[row].removeprefix(f"{origin.source}:")
        found.append(DataFault(row - origin.first, one, str(table.split[row]), origin.source, column, reason))
    return DataReport(table.source, len(rows), found)
