"""Kinds, classes and statistics of the columns of a tabular input, inferred from the training rows."""

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from mm.cells import label_of, text_fault, text_of
from mm.cells.classes import one_form, probable_duplicates, sort_classes
from mm.cells.numbers import mean_and_std, value_of
from mm.messages import near, say
from mm.transforms.tabular.kinds import category_notes, check_names
from mm.types import ColumnData

KINDS = ("number", "category", "list")


def find_column(
    given: ColumnData, cells: Sequence[Any], train: np.ndarray, name_row: Callable[[int], str] = "row {}".format
) -> tuple[ColumnData, dict[int, str]]:
    """Infer the kind of a column, and its mean and standard deviation or its classes.

    If the user has not set the kind, it is "number" if all cells are numbers, "list" if all are lists, else "category".

    Args:
        given: The column, with the settings of the user.
        cells: Cells of all rows.
        train: Whether each row is a training row, (N,) bool; kind, statistics and classes are those of the training
            rows.
        name_row: Function from the index of a row to its name in messages.

    Returns:
        The column, and a dictionary from the index of each row with an invalid cell to the error message.

    Raises:
        ValueError: If all cells of the training rows are empty, if only some of them are lists, or if nearly all of
            them are numbers or dates.
    """
    rows = [row for row in np.flatnonzero(train).tolist() if not is_empty(cells[row])]
    learnt = [cells[row] for row in rows]
    if not learnt:
        raise ValueError(f"column '{given.name}': no training row has a cell; leave the column out")
    column = replace(given, kind=given.kind or kind_of(given, learnt))
    if given.kind is None and column.kind == "category":
        check_names(given.name, [text_of(cell) for cell in learnt], rows, name_row)
    numbers: list[float] = []
    classes: Counter[str] = Counter()
    faults: dict[int, str] = {}
    for row, (cell, learning) in enumerate(zip(cells, train.tolist())):
        if is_empty(cell):
            continue
        try:
            if column.kind == "number":
                number = value_of(text_of(cell))
                numbers += [number] if learning else []
            else:
                found = names(column, cell)
                check_text(found)
                classes.update(found if learning else ())
        except ValueError as error:
            faults[row] = str(error)
    if column.kind != "number":
        forms = one_form(classes)
        counts: Counter[str] = Counter()
        for name, count in classes.items():
            counts[forms[name]] += count
        for line in probable_duplicates(counts):
            say(f"column '{given.name}': {line}")
        return replace(column, classes=tuple(sort_classes(set(counts)))), faults
    mean, std = mean_and_std(np.array(numbers)) if numbers else (0.0, 0.0)
    return replace(column, mean=mean, std=std if std > 0 else 1.0), faults


def is_empty(cell: Any) -> bool:
    """Return whether a cell is empty or an empty list."""
    return not len(cell) if isinstance(cell, list | tuple) else not text_of(cell)


def kind_of(given: ColumnData, filled: Sequence[Any]) -> str:
    """Return the kind of a column: "number", "category" or "list".

    Args:
        given: The column, with the settings of the user.
        filled: Cells of the training rows that are not empty.

    Raises:
        ValueError: If only some of the cells are lists.
    """
    lists = [is_list(cell) for cell in filled]
    if given.separator or all(lists):
        return "list"
    odd = next((cell for cell, found in zip(filled, lists) if not found and any(lists)), None)
    if odd is not None and any(isinstance(cell, list | tuple) for cell in filled):
        raise ValueError(
            f"column '{given.name}': has '{text_of(odd)[:60]}' beside lists; make all of its cells lists, or name what "
            f"they are: {{column: {given.name}, kind: {'|'.join(KINDS)}}}"
        )
    return "number" if all(is_number(cell) for cell in filled) else "category"


def is_number(cell: Any) -> bool:
    """Return whether a cell is a finite number; True and False are not numbers."""
    try:
        return not isinstance(cell, bool | list | tuple) and value_of(text_of(cell)) is not None
    except ValueError:
        return False


def is_list(cell: Any) -> bool:
    """Return whether a cell is a list, or a string that is a list in JSON."""
    return isinstance(cell, list | tuple) or (isinstance(cell, str) and json_list(cell) is not None)


def json_list(cell: str) -> list[Any] | None:
    """Return the list that a string represents in JSON, or None if it does not represent a list."""
    if not cell.lstrip().startswith("["):
        return None
    try:
        found = json.loads(cell)
    except ValueError:
        return None
    return found if isinstance(found, list) else None


def names(column: ColumnData, cell: Any) -> list[str]:
    """Return the class names in a cell.

    Raises:
        ValueError: If the column contains lists and the cell is not a list.
    """
    if column.kind == "category":
        return [label_of(cell)]
    if isinstance(cell, str) and column.separator:
        return [name.strip() for name in label_of(cell).split(column.separator) if name.strip()]
    found = json_list(cell) if isinstance(cell, str) else cell
    if not isinstance(found, list | tuple):
        raise ValueError(
            f"got '{text_of(cell)[:60]}', wanted a list; name what stands between its elements: {{column: "
            f"{column.name}, separator: ...}}"
        )
    # Fast path for ASCII strings, which most elements are: user histories have millions of them.
    texts = (x.strip() if isinstance(x, str) and x.isascii() else label_of(x) for x in found)
    return [text for text in texts if text]


def check_text(found: Sequence[str]) -> None:
    """Raise an error if a class name is not valid text.

    Raises:
        ValueError: If a name is not valid UTF-8 or contains a NUL character.
    """
    for name in found:
        fault = text_fault(name)
        if fault is not None:
            raise ValueError(fault)


def told(column: ColumnData, cells: Sequence[Any]) -> str:
    """Return a description of a column for display to the user.

    Args:
        column: The column, with its statistics or classes.
        cells: Cells of the training rows.
    """
    if column.kind == "number":
        return f"{column.name} is a number (mean {column.mean:.6g}, deviation {column.std:.6g})"
    what = f"{column.name} is {'a list of' if column.kind == 'list' else 'one of'} {len(column.classes)} classes"
    if column.kind == "list":
        return what
    return what + category_notes(column, [text_of(cell) for cell in cells if not is_empty(cell)])


def plain(column: ColumnData) -> dict[str, Any]:
    """Return the fields of a column as plain values that can be stored in a config.

    The classes are joined into one JSON string, because OmegaConf is about 100 times slower with a list of thousands of
    items.
    """
    return {**asdict(column), "classes": json.dumps(column.classes, ensure_ascii=False)}


def column_data(fields: Mapping[str, Any]) -> ColumnData:
    """Create a column from the result of `plain`, or from a mapping of its fields."""
    classes = fields.get("classes", ())
    return ColumnData(**{**fields, "classes": tuple(json.loads(classes) if isinstance(classes, str) else classes)})


def check_column(given: ColumnData, where: str) -> ColumnData:
    """Return a column after checking the settings of the user.

    Args:
        given: The column.
        where: Config key of the column, for messages.

    Raises:
        ValueError: If the kind is unknown, or if a separator is empty or set for a column that does not contain lists.
    """
    if given.kind not in (None, *KINDS):
        raise ValueError(
            f"{where}: got kind '{given.kind}' of '{given.name}', wanted one of {', '.join(KINDS)}"
            f"{near(str(given.kind), KINDS)}"
        )
    if given.separator is not None and (given.separator == "" or given.kind not in (None, "list")):
        raise ValueError(f"{where}: the separator of '{given.name}' is for lists, and no empty text; leave it out")
    return given
