"""Conversion of columns with values of unknown type to Arrow arrays."""

import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow

BLOCK = 65_536  # number of values that exist as Python objects at a time


def to_arrow(values: list[Any]) -> "pyarrow.Array":
    """Convert a column to an Arrow array; values of several types become JSON texts."""
    import pyarrow

    try:
        return pyarrow.array(values)
    except pyarrow.ArrowException:
        return pyarrow.array([as_text(value) for value in values])


def as_text(value: Any) -> str | None:
    """Return a value as JSON text; strings and None stay unchanged."""
    return value if value is None or isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def common_type(types: Sequence["pyarrow.DataType"]) -> "pyarrow.DataType":
    """Return the Arrow type of a column whose chunks have the given types, as if all of its values were in one list."""
    import pyarrow

    schemas = [pyarrow.schema([("x", one)]) for one in types]
    try:
        return pyarrow.unify_schemas(schemas, promote_options="permissive").field(0).type
    except pyarrow.ArrowException:
        return pyarrow.string()


def convert_type(array: "pyarrow.Array", kind: "pyarrow.DataType") -> "pyarrow.Array":
    """Convert an array to the type of its complete column."""
    import pyarrow

    if array.type == kind:
        return array
    values = array.to_pylist()
    return pyarrow.array([as_text(x) for x in values] if pyarrow.types.is_string(kind) else values, type=kind)


def whole_column(rows: Sequence[int], value: Callable[[int], Any]) -> "pyarrow.ChunkedArray":
    """Return a column for all rows as a chunked array, which has to fit in memory.

    Args:
        rows: Indices of the rows.
        value: Function that returns the value of a row.
    """
    import pyarrow

    parts = [to_arrow([value(row) for row in rows[i : i + BLOCK]]) for i in range(0, max(1, len(rows)), BLOCK)]
    kind = common_type([part.type for part in parts])
    return pyarrow.chunked_array([convert_type(part, kind) for part in parts], type=kind)
