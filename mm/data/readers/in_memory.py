"""Tables that are in memory already: data frames, Arrow tables, lists of rows."""

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow

from mm.data.readers.encoding import check_header
from mm.data.readers.jsonl import packed
from mm.data.readers.parquet import unpack_table
from mm.data.table import Cells
from mm.messages import near

SETTINGS = ("path", "weight", "columns", "split", "column_names")  # of one of several files; see sources.py


def is_table(data: Any) -> bool:
    """Return whether some data is a table in memory: it speaks Arrow's protocol, is a data frame, or a list of rows.

    Lists of mappings with a `path` beside nothing but settings of a source are lists of files; see `sources`.
    """
    if hasattr(data, "__arrow_c_stream__") or is_pandas(data):
        return True
    if not isinstance(data, list | tuple) or not data or not all(isinstance(row, Mapping) for row in data):
        return False
    return not all("path" in row and all(key in SETTINGS or near(str(key), SETTINGS) for key in row) for row in data)


def is_pandas(data: Any) -> bool:
    """Return whether some data is a pandas DataFrame, without importing pandas."""
    cls = type(data)
    return cls.__module__.partition(".")[0] == "pandas" and cls.__name__ == "DataFrame"


def table_name(data: Any) -> str:
    """Return the name by which messages call a table in memory, such as `DataFrame`."""
    return "rows" if isinstance(data, list | tuple) else type(data).__name__


def read_table(data: Any) -> Cells:
    """Return the columns of a table in memory.

    Args:
        data: A pandas or polars DataFrame (without its index), a pyarrow Table, anything else with
            `__arrow_c_stream__`, or a list of rows, each a mapping of column to cell. A row may lack a column.

    Returns:
        Column name -> cells by row; None where a cell is empty.

    Raises:
        ValueError: If it has no rows, a column twice, or cells that Python can't hold.
    """
    name = table_name(data)
    if isinstance(data, list | tuple):
        cells = columns_of_rows(data)
    else:
        cells = unpack_table(with_plain_texts(to_arrow(data, name)))
    check_header(list(cells), name)
    if not cells or not len(next(iter(cells.values()))):
        raise ValueError(f"{name}: has no rows")
    return cells


def to_arrow(data: Any, name: str) -> pyarrow.Table:
    """Return an Arrow table of a data frame, or of what speaks Arrow's protocol."""
    if isinstance(data, pyarrow.Table):
        return data
    if is_pandas(data):
        if not all(isinstance(column, str | int) for column in data.columns):
            raise ValueError(f"{name}: got column names of several levels, wanted a name each; join them")
        data = data.rename(columns=str)
        try:
            return pyarrow.Table.from_pandas(data, preserve_index=False)
        except (pyarrow.ArrowException, TypeError):  # a column of several types: each cell as it is
            return pyarrow.table({c: as_array(data[c].tolist(), c, name) for c in data.columns})
    return pyarrow.table(data)


def as_array(cells: list[Any], column: str, name: str) -> pyarrow.Array:
    """Return cells of several types as texts."""
    try:
        return pyarrow.array(cells, from_pandas=True)
    except (pyarrow.ArrowException, TypeError):
        pass
    odd = next((cell for cell in cells if not isinstance(cell, str | int | float | None)), None)
    if odd is not None:
        raise ValueError(f"{name}: column '{column}' has {odd!r:.60} beside cells of other types; make them texts")
    missing = (None if cell is None or cell != cell else str(cell) for cell in cells)
    return pyarrow.array(list(missing), pyarrow.string())


def with_plain_texts(table: pyarrow.Table) -> pyarrow.Table:
    """Return a table whose columns of text views, as polars has them, are plain texts."""
    for place, field in enumerate(table.schema):
        if pyarrow.types.is_string_view(field.type):
            texts = table.column(place).cast(pyarrow.large_string())
            table = table.set_column(place, field.name, texts)
    return table


def columns_of_rows(rows: Sequence[Mapping[str, Any]]) -> Cells:
    """Return the columns of rows that are mappings."""
    names = dict.fromkeys(name for row in rows for name in row)
    for name in names:
        if not isinstance(name, str):
            raise ValueError(f"rows: got the column name {name!r}, wanted a text")
    return {name: packed([row.get(name) for row in rows]) for name in names}
