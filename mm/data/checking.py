"""Check of a complete data set: every cell is read once, and every fault is listed."""

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from pathlib import Path

from torch.utils.data import DataLoader, Dataset

from mm.data.faults import DataFault, list_faults, write_faults
from mm.data.loading import Rows, begin_worker
from mm.data.module import DataModule
from mm.data.sampling import Draw
from mm.data.table import Fault
from mm.data_source import check_data_source
from mm.reports import Report, Table


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
        """Return the number of rows with at least one cell that can't be read."""
        return len({fault.row for fault in self.faults})

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
        return Table(DataFault._fields, self.faults, self.summary())

    def save(self, folder: str | Path) -> Path:
        """Write metrics.json and, with a line per fault, errors.csv into a folder."""
        folder = super().save(folder)
        write_faults(folder / "errors.csv", self.faults)
        return folder


class FaultsOfRows(Dataset[list[Fault]]):
    """Data set of the faults of each row, read as in validation; the tensors are discarded."""

    def __init__(self, rows: Rows):
        self.rows = rows

    def __getitem__(self, row: int) -> list[Fault]:
        return self.rows[Draw(row, 0)].faults


def check_data(data: DataModule) -> DataReport:
    """Read every row of a data set once and list every cell that can't be read, instead of stopping at the first.

    Every fault that training would meet under `on_error=raise` is listed: files that are missing or damaged, texts that
    are not UTF-8, targets that can't be read, IDs that are empty or not unique, unknown split names. A fault of the
    whole file, such as a column that does not exist, is an error.

    Args:
        data: The data. It is not changed. Its transforms read the cells, or the default ones if it has none.

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
    check_data_source(data)
    data = copy(data)
    data.faults, data.notes = dict(data.faults), set(data.notes)
    if data.on_error != "missing":  # the table may lack its faulty rows: it is read again
        data.on_error, data.faults, data.notes = "missing", {}, set()
        data.__dict__.pop("table", None)
    table = data.table
    if data.transforms:
        data.use(data.transforms)
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
    return DataReport(table.source, len(rows), list_faults(data.faults, table))
