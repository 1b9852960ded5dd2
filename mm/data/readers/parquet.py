"""Parquet files and Arrow tables -> columns of cells."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
from pyarrow.compute import MatchSubstringOptions
from pyarrow.compute import call_function as call

from mm.data.readers.encoding import check_header
from mm.data.table import Cells
from mm.text_column import TextColumn


def read_parquet(path: Path) -> Cells:
    """Errors: ValueError where the file is none, or a cell can't be read."""
    try:
        table = pyarrow.parquet.read_table(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise ValueError(f"{path}: can't be read as Parquet: {error}") from None
    check_header(table.column_names, str(path))
    try:
        return unpack_table(table)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def unpack_table(table: pyarrow.Table) -> Cells:
    """Return the columns of an Arrow table; texts that are valid UTF-8 stay in its memory."""
    return {name: unpack_column(name, table.column(name)) for name in table.column_names}


def unpack_column(name: str, column: pyarrow.ChunkedArray) -> Sequence[Any]:
    """Return the cells of a column. Raise ValueError for the first that Python can't hold, such as the year 100000."""
    if pyarrow.types.is_string(column.type) or pyarrow.types.is_large_string(column.type):
        try:
            column.validate(full=True)
            has_nul = call("any", [call("match_substring", [column], MatchSubstringOptions("\0"))]).as_py()
            return column.to_pylist() if has_nul else TextColumn(column)
        except pyarrow.ArrowInvalid:
            kind = pyarrow.binary() if pyarrow.types.is_string(column.type) else pyarrow.large_binary()
            cells = [cell for chunk in column.chunks for cell in chunk.view(kind).to_pylist()]
            return [None if cell is None else cell.decode("utf-8", "surrogateescape") for cell in cells]
    try:
        return column.to_pylist()
    except (ValueError, OverflowError, UnicodeDecodeError) as error:
        row = next(row for row in range(len(column)) if not is_readable(column[row]))
        raise ValueError(f"row {row}, column '{name}': the cell can't be read: {error}") from None


def is_readable(cell: pyarrow.Scalar) -> bool:
    """Return whether Python has a value for an Arrow scalar."""
    try:
        cell.as_py()
        return True
    except (ValueError, OverflowError, UnicodeDecodeError):
        return False
