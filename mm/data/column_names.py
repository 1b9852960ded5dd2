"""Assignment of columns to inputs, targets and roles, from the settings and the names of the columns."""

from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import Any

from mm.data.table import Cells
from mm.messages import listing, near
from mm.modalities import modality_names

ROLES = ("id", "split", "group")  # what a column may be beside inputs and targets


def find_roles(cells: Cells, columns: Mapping[str, Any], taken: set[str]) -> dict[str, str | None]:
    """Return the columns of id, split and group: those that are set, or else columns with these names.

    A role that is set to false or "" has no column, whatever the columns are called.

    Args:
        cells: Column name to cells.
        columns: The setting `datamodule.columns`: role to column name.
        taken: Columns of inputs and targets.
    """
    roles = {role: named(columns, role) for role in ROLES}
    return {
        role: role if column is None and role in cells and role not in taken and not unused(columns, role) else column
        for role, column in roles.items()
    }


def unused(columns: Mapping[str, Any], role: str) -> bool:
    """Return whether the user has set that no column has a role."""
    value = columns.get(role)
    return value is False or value == ""


def way_out(role: str, roles: Mapping[str, str | None], columns: Mapping[str, Any]) -> str:
    """Return a remedy, to be appended to a message, if an unsuitable column got a role by its name alone."""
    if roles[role] != role or named(columns, role) is not None:
        return ""
    return f"; if the column '{role}' is none, set datamodule.columns.{role}=false"


def check_columns(
    cells: Cells, used: Sequence[str], source: Path, trained: bool, targets: Set[str] = frozenset()
) -> None:
    """Check that columns exist.

    Args:
        cells: Column name to cells.
        used: The columns.
        source: Path of the file, for error messages.
        trained: Whether the columns are those of a trained model.
        targets: Those of the columns that are targets.

    Raises:
        ValueError: If a column does not exist.
    """
    for column in used:
        if column not in cells:
            names = list(cells)
            fix = near(column, names)
            if trained or not fix:
                fix += remedy(names, source.suffix.lower(), trained, column in targets)
            raise ValueError(f"{source}: no column '{column}'; there are {listing(names, 30)}{fix}")


def remedy(names: Sequence[str], suffix: str, trained: bool, target: bool) -> str:
    """Return a remedy for a missing column, to be appended to a message.

    Args:
        names: Names of the columns of the file.
        suffix: Suffix of the file.
        trained: Whether the column is that of a trained model.
        target: Whether the column is a target.
    """
    delimited = suffix in (".csv", ".tsv")
    other = next((mark for mark in ";|\t," if mark in names[0]), None) if delimited and len(names) == 1 else None
    if other:
        return f"; is {other!r} the delimiter? .csv files have commas, .tsv files tabs"
    if trained:
        return "; mm predict needs none" if target else "; to do without an input, say datamodule.inputs=[...]"
    return (
        "; if the first line is a row already, name the columns with datamodule.column_names=[...]" if delimited else ""
    )


def named(columns: Mapping[str, Any], role: str) -> str | None:
    """Return the name of the column which the user chose for a role, or None.

    A column may be named 0, so compare the result with None instead of testing its truth value.

    Args:
        columns: The setting `datamodule.columns`: role to column name.
        role: Name of an input, target or other role.
    """
    value = columns.get(role)
    return None if value is None or value is False or value == "" else str(value)


def input_columns(cells: Cells, columns: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """Return the column and the modality of each input."""
    found = {m: (column, m) for m in modality_names() if (column := named(columns, m))}
    for name, full in (columns.get("inputs") or {}).items():
        modality = full.get("modality") if isinstance(full, Mapping) else None
        column = named(full, "column") if isinstance(full, Mapping) else None
        if modality not in modality_names() or not column:
            raise ValueError(
                f"datamodule.columns.inputs.{name}: got {full}, wanted {{column: ..., modality: "
                f"{'|'.join(modality_names())}}}"
            )
        found[name] = (column, modality)
    if not found:  # no input is named: columns that bear a modality's name are taken
        found = {m: (m, m) for m in modality_names() if m in columns and m in cells}
    if not found:
        *some, last = modality_names()
        raise ValueError(
            f"datamodule.columns: no input column is named; set datamodule.columns.{', .'.join(some)} or .{last} to "
            f"one of {listing(list(cells), 30)}"
        )
    return found


def target_columns(cells: Cells, columns: Mapping[str, Any]) -> dict[str, str]:
    """Return the column of each target."""
    target = named(columns, "target")
    found = {"target": target} if target else {}
    for name, column in (columns.get("targets") or {}).items():
        if not isinstance(column, str | int) or isinstance(column, bool):
            raise ValueError(f"datamodule.columns.targets.{name}: got {column}, wanted the name of a column")
        found[name] = str(column)
    return found or ({"target": "target"} if "target" in cells else {})
