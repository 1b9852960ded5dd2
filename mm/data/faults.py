"""Cells that can't be read, as a list and as a CSV file."""

import csv
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from mm.data.table import Fault, Table
from mm.files import whole


class DataFault(NamedTuple):
    """A cell that can't be read.

    Attributes:
        row: Index of the row in the table.
        id: Id of the row; with several files, FILE:ID.
        split: Split of the row; "" if it has none.
        column: Column of the cell.
        error: Why the cell can't be read.
    """

    row: int
    id: str
    split: str
    column: str
    error: str


def list_faults(faults: Mapping[tuple[int, str], str], table: Table) -> list[DataFault]:
    """Return the faults of a table in the order of its rows.

    Args:
        faults: (row, column) to the error message.
        table: The table.
    """
    return [
        DataFault(row, str(table.ids[row]), str(table.split[row]), column, error)
        for (row, column), error in sorted(faults.items())
    ]


def write_faults(path: Path, faults: Iterable[DataFault]) -> None:
    """Write a CSV file with one line per fault, atomically."""
    with whole(path) as part, part.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:
        csv.writer(file).writerows([DataFault._fields, *faults])


def describe_fault(fault: Fault, table: Table, on_error: str, others: int = 0) -> str | None:
    """Return the message of the error that a fault raises; None if it is recorded instead.

    Args:
        fault: The fault.
        table: The table.
        on_error: Handling of rows that can't be read.
        others: Number of other rows that are known to be invalid.
    """
    where = printable(f"{table.name(fault.row)}, column '{fault.column}': {fault.message}")
    if fault.fix:
        return f"{where}. {fault.fix}"
    if on_error != "raise":
        return None
    more = f" ({others} more rows are wrong)" if others else ""
    return (
        f"{where}{more}. Mend the row, or set datamodule.on_error=drop (leave out such rows) or "
        "datamodule.on_error=missing (take the cell as empty)"
    )


def printable(text: str) -> str:
    """Return a text in which bytes that are not valid UTF-8 are escaped, so that it can be printed and written."""
    return text.encode("utf-8", "backslashreplace").decode()
