"""Conversion of columns of numbers, categories and lists to one tabular input."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from mm.data.module import DataModule
from mm.data.splitting import keep_some
from mm.data.table import Fault, Table
from mm.messages import near, say
from mm.modalities import get_modality, modality_names
from mm.transforms.tabular.columns import check_column, find_column, is_empty, told
from mm.types import ColumnData

FIELDS = ("column", "kind", "separator")


def cut_tabular(columns: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, tuple[ColumnData, ...]]]:
    """Return `datamodule.columns` with one name for all columns of a tabular input, and the columns of each input."""
    plain, found = dict(columns), {}
    modalities = [name for name in modality_names() if get_modality(name).of_columns]
    for name in modalities:
        if (given := columns.get(name)) not in (None, ""):
            found[name] = given_columns(name, given)
            plain[name] = label(found[name])
    full: dict[str, Any] = dict(columns.get("inputs") or {})
    for name, one in full.items():
        if isinstance(one, Mapping) and one.get("modality") in modalities and one.get("column") not in (None, ""):
            found[name] = given_columns(f"inputs.{name}.column", one["column"])
            full[name] = {**one, "column": label(found[name])}
    return plain | {"inputs": full}, found


def given_columns(where: str, given: Any) -> tuple[ColumnData, ...]:
    """Return the columns of a tabular input; each is given as a name or {column: ..., kind: ..., separator: ...}.

    Raises:
        ValueError: If a column is invalid or repeated.
    """
    where = f"datamodule.columns.{where}"
    found = []
    for one in given if isinstance(given, list | tuple) else [given]:
        full = one if isinstance(one, Mapping) else {"column": one}
        for key in full:
            if key not in FIELDS:
                raise ValueError(
                    f"{where}: '{key}' of {dict(full)}: nothing reads it, wanted {', '.join(FIELDS)}"
                    f"{near(str(key), FIELDS)}"
                )
        name = full.get("column")
        if isinstance(name, bool) or not isinstance(name, str | int):
            raise ValueError(f"{where}: got {one}, wanted a column, or {{column: ..., kind: ..., separator: ...}}")
        data = ColumnData(name=str(name), kind=full.get("kind"), separator=full.get("separator"))
        found.append(check_column(data, where))
    names = [column.name for column in found]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"{where}: got {names}, wanted at least one column, and each once")
    return tuple(found)


def label(columns: Sequence[ColumnData]) -> str:
    """Return the names of several columns as one name, for messages."""
    return "+".join(column.name for column in columns)


def rows_of(cells: Mapping[str, Sequence[Any]], columns: Sequence[ColumnData]) -> list[dict[str, Any] | None]:
    """Return the cells of each row by column; None if all are empty."""
    names = [column.name for column in columns]
    rows = zip(*(cells[name] for name in names), strict=True)
    return [None if all(map(is_empty, row)) else dict(zip(names, row)) for row in rows]


def row_of_file(table: Table, row: int) -> str:
    """Return the name of a row for messages about a column: its index in its file and, with several files, the file."""
    origin = table.origin(row)
    return f"row {row - origin.first}" + (f" of {origin.source}" if table.origins else "")


def learn_columns(table: Table, name: str, module: DataModule) -> None:
    """Determine kinds, statistics and classes of the columns of a tabular input from its training rows.

    Invalid cells are recorded as errors. For a trained model (`module.trained`) the facts are already known.
    """
    data, raw = table.spec.inputs[name], table.inputs[name]
    assert data.columns is not None
    if module.trained:
        return
    keep_some(table, module.split)
    found, said = [], []
    for given in data.columns:
        cells = [None if row is None else row.get(given.name) for row in raw]
        train = table.split == "train"
        column, faults = find_column(given, cells, train, partial(row_of_file, table))
        for row, message in faults.items():
            if table.split[row] != "":
                table.faults.append(Fault(row, given.name, message))
            if module.on_error == "drop":
                table.split[row] = ""
            raw[row] = {**raw[row], given.name: None}
        found.append(column)
        said.append(told(column, [cells[row] for row in np.flatnonzero(train).tolist()]))
    cardinalities = tuple(0 if column.kind == "number" else len(column.classes) + 1 for column in found)
    table.spec.inputs[name] = replace(data, columns=tuple(found), cardinalities=cardinalities)
    say(f"{table.source}: {name}: {'; '.join(said)}")
