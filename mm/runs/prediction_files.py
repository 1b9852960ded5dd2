"""The file of predictions of a run, as Parquet or CSV: a row for each row of the data."""

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
    """What is written of the rows of a data set."""

    @property
    def table(self) -> Any:
        """Return all rows."""
        ...

    @property
    def faults(self) -> Mapping[tuple[int, str], str]:
        """Return (row, column) -> what is wrong."""
        ...

    def truth(self, name: str, row: int) -> Any:
        """Return a row's true target, as a person reads it."""
        ...

    def write_errors(self, path: Path) -> None:
        """Write a CSV of the rows that could not be read."""
        ...


class DecodedRows(Protocol):
    """Predictions, as `mm.tasks.answers.Answers` holds them."""

    def tables(self, rows: Sequence[int]) -> Iterator[tuple[int, "pyarrow.Table"]]:
        """Yield the number of rows of each block, and the block."""
        ...


def check_format(format: str) -> None:
    """Check the format of a file of predictions.

    Raises:
        ValueError: If there is no such format.
    """
    if format not in FORMATS:
        raise ValueError(f"format: got '{format}', wanted one of {', '.join(FORMATS)}{near(str(format), FORMATS)}")


def name_true_columns(table: Any, taken: Sequence[str]) -> dict[str, str]:
    """Name the columns of the true values as the user's table does.

    Args:
        table: All rows, of one file or of several.
        taken: Names of other columns of predictions.

    Returns:
        Target name to its column: the user's column; the target's name where the data has no columns, or several
        files call it differently; `TARGET/truth` where another column of predictions bears the name already.
    """
    names: dict[str, str] = {}
    for target in table.targets:
        columns = {origin.columns.get(target, target) for origin in table.origins or [table]}
        column = columns.pop() if len(columns) == 1 else target
        names[target] = f"{target}/truth" if column in {*FIRST_COLUMNS, *taken, *names.values()} else column
    return names


def write_predictions(path: Path, data: MeasuredData, rows: Sequence[int], answers: DecodedRows, truth: bool) -> None:
    """Write a file of predictions, a block of rows at a time.

    Its columns: id, row, error where there was one; per head prediction and probabilities; last, the true value of each
    target under the name of the user's column, as `name_true_columns` says.

    Args:
        path: The file; it ends in .parquet or .csv.
        data: Where the rows are from, and what was wrong with them.
        rows: Their numbers, in the order of the file.
        answers: What was predicted for them, by all processes.
        truth: Whether targets are written as well.
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
    """Write a whole table of predictions to a file that ends in .parquet or .csv."""
    table = flatten_table(table) if path.suffix == ".csv" else table
    with whole(path) as part, open_writer(path.suffix, part, table.schema) as writer:
        writer.write_table(table)


def open_writer(suffix: str, path: Path, schema: "pyarrow.Schema") -> Any:
    """Return pyarrow's writer of Parquet or CSV, for a file without a suffix of its own."""
    if suffix == ".csv":
        from pyarrow.csv import CSVWriter

        return CSVWriter(path, schema)
    from pyarrow.parquet import ParquetWriter

    return ParquetWriter(path, schema)


def flatten_table(table: "pyarrow.Table") -> "pyarrow.Table":
    """Return a table that CSV can hold: lists and mappings are JSON, and a null stays an empty cell."""
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
