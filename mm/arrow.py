"""Columns of values whose type is not known before, as Arrow arrays."""

import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow

BLOCK = 65_536  # values that are Python objects at once


def to_arrow(values: list[Any]) -> "pyarrow.Array":
    """Return a column as an Arrow array; as JSON where its values are of several kinds."""
    import pyarrow

    try:
        return pyarrow.array(values)
    except pyarrow.ArrowException:
        return pyarrow.array([as_text(value) for value in values])


def as_text(value: Any) -> str | None:
    """Return a value among others of another kind as text."""
    return value if value is None or isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def common_type(types: Sequence["pyarrow.DataType"]) -> "pyarrow.DataType":
    """Return the type of a column whose chunks have these types, as if all of its values were one list."""
    import pyarrow

    schemas = [pyarrow.schema([("x", one)]) for one in types]
    try:
        return pyarrow.unify_schemas(schemas, promote_options="permissive").field(0).type
    except pyarrow.ArrowException:
        return pyarrow.string()


def convert_type(array: "pyarrow.Array", kind: "pyarrow.DataType") -> "pyarrow.Array":
    """Return an array in the type of the whole column."""
    import pyarrow

    if array.type == kind:
        return array
    values = array.to_pylist()
    return pyarrow.array([as_text(x) for x in values] if pyarrow.types.is_string(kind) else values, type=kind)


def whole_column(rows: Sequence[int], value: Callable[[int], Any]) -> "pyarrow.ChunkedArray":
    """Return a column that is small enough to be held for all rows.

    Args:
        rows: The numbers of its rows.
        value: Returns the value of a row.
    """
    import pyarrow

    parts = [to_arrow([value(row) for row in rows[i : i + BLOCK]]) for i in range(0, max(1, len(rows)), BLOCK)]
    kind = common_type([part.type for part in parts])
    return pyarrow.chunked_array([convert_type(part, kind) for part in parts], type=kind)
