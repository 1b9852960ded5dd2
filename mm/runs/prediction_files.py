"""The predictions file of a run, as Parquet or CSV, with a row for each row of the data."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from mm.arrow import whole_column
from mm.files import whole
from mm.messages import near

if TYPE_CHECKING:
    import pyarrow

FORMATS = ("parquet", "csv")
FIRST_COLUMNS = ("id", "row", "error")


class MeasuredData(Protocol):
    """The attributes of a data set that its result files need."""

    @property
    def table(self) -> Any:
        """Return the table with all rows."""
        ...

    @property
    def faults(self) -> Mapping[tuple[int, str], str]:
        """Return the errors of the data: (row, column) to message."""
        ...

    def truth(self, name: str, row: int) -> Any:
        """Return the decoded true target of a row."""
        ...

    def write_errors(self, path: Path) -> None:
        """Write a CSV file of the rows that could not be read."""
        ...


class DecodedRows(Protocol):
    """Decoded predictions, such as `mm.tasks.answers.Answers`."""

    def tables(self, rows: Sequence[int]) -> Iterator[tuple[int, "pyarrow.Table"]]:
        """Yield the number of rows and the table of each block of predictions."""
        ...


def check_format(format: str) -> None:
    """Raise ValueError if the format of a predictions file is not supported."""
    if format not in FORMATS:
        raise ValueError(f"format: got '{format}', wanted one of {', '.join(FORMATS)}{near(str(format), FORMATS)}")


def name_true_columns(table: Any, taken: Sequence[str]) -> dict[str, str]:
    """Name the columns of the true values after those of the user's table.

    Args:
        table: The table with all rows, of one or several files.
        taken: Names of the other columns of the predictions file.

    Returns:
        Target name to column name. This is the name of the user's column, or the name of the target if the data has no
        columns or if several files name the column differently, or `TARGET/truth` if that name is taken.
    """
    names: dict[str, str] = {}
    for target in table.targets:
        columns = {origin.columns.get(target, target) for origin in table.origins or [table]}
        column = columns.pop() if len(columns) == 1 else target
        names[target] = f"{target}/truth" if column in {*FIRST_COLUMNS, *taken, *names.values()} else column
    return names


def write_predictions(path: Path, data: MeasuredData, rows: Sequence[int], answers: DecodedRows, truth: bool) -> None:
    """Write a file of predictions, block by block.

    The columns are id, row and error (a message, or null); the predictions and probabilities of each head; and the true
    value of each target, named as in `name_true_columns`.

    Args:
        path: Path of the file, which ends in .parquet or .csv.
        data: The data of the rows, with the errors that were found in it.
        rows: Indices of the rows, in the order of the file.
        answers: The predictions for these rows, of all processes.
        truth: Whether to write the true targets.
    """
    import pyarrow

    errors: dict[int, list[str]] = {}
    for (row, column), message in data.faults.items():
        errors.setdefault(row, []).append(f"{column}: {message}")
    about = {
        "id": whole_column(rows, data.table.ids.__getitem__),
        "row": whole_column(rows, int),
        "error": whole_column(rows, lambda row: "; ".join(errors[row]) if row in errors else None),
    }
    true = {name: whole_column(rows, partial(data.truth, name)) for name in (data.table.targets if truth else ())}
    with ExitStack() as stack:
        part, writer, begin = stack.enter_context(whole(path)), None, 0
        for size, block in answers.tables(rows):
            columns = {name: x.slice(begin, size) for name, x in about.items()}
            columns |= dict(zip(block.column_names, block.columns))
            names = name_true_columns(data.table, block.column_names) if truth else {}
            columns |= {names[target]: x.slice(begin, size) for target, x in true.items()}
            table = pyarrow.table(columns)
            table = flatten_table(table) if path.suffix == ".csv" else table
            if writer is None:
                writer = stack.enter_context(open_writer(path.suffix, part, table.schema))
            writer.write_table(table)
            begin += size


def write_table(path: Path, table: "pyarrow.Table") -> None:
    """Write a complete table of predictions to a file that ends in .parquet or .csv."""
    table = flatten_table(table) if path.suffix == ".csv" else table
    with whole(path) as part, open_writer(path.suffix, part, table.schema) as writer:
        writer.write_table(table)


def open_writer(suffix: str, path: Path, schema: "pyarrow.Schema") -> Any:
    """Return pyarrow's writer for Parquet or CSV.

    Args:
        suffix: Suffix of the final file, ".parquet" or ".csv".
        path: Path of the temporary file to write, which has another suffix.
        schema: Schema of the table.
    """
    if suffix == ".csv":
        from pyarrow.csv import CSVWriter

        return CSVWriter(path, schema)
    from pyarrow.parquet import ParquetWriter

    return ParquetWriter(path, schema)


def flatten_table(table: "pyarrow.Table") -> "pyarrow.Table":
    """Return a table that can be written as CSV: lists and mappings become JSON texts, and nulls stay empty cells."""
    import pyarrow

    columns = {}
    for name in table.column_names:
        column = table.column(name)
        if pyarrow.types.is_nested(column.type):
            texts = [None if x is None else json.dumps(x, ensure_ascii=False, default=str) for x in column.to_pylist()]
            column = pyarrow.array(texts, pyarrow.string())
        elif pyarrow.types.is_null(column.type):
            column = column.cast(pyarrow.string())
        columns[name] = column
    return pyarrow.table(columns)
