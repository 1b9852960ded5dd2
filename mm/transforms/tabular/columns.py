"""What a table's column holds, found from the cells of the training rows."""

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
    """The kind, where the user has not named it, and the numbers' mean and deviation, or the classes.

    Of cells that all are numbers: number; of lists: list; else category. cells: of all rows; train: (N,) bool, the rows
    that may be learnt from; name_row: how messages name a row. -> the column, and row -> why its cell can't be read
    Errors: ValueError where no cell says anything, lists stand beside other cells, or nearly all cells are numbers or
    dates.
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
    """Whether it says nothing; so does an empty list."""
    return not len(cell) if isinstance(cell, list | tuple) else not text_of(cell)


def kind_of(given: ColumnData, filled: Sequence[Any]) -> str:
    """Errors: ValueError where lists stand beside other cells."""
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
    """Whether a cell is a finite number; True and False are none."""
    try:
        return not isinstance(cell, bool | list | tuple) and value_of(text_of(cell)) is not None
    except ValueError:
        return False


def is_list(cell: Any) -> bool:
    """Whether a cell is a list, or a text that is one in JSON."""
    return isinstance(cell, list | tuple) or (isinstance(cell, str) and json_list(cell) is not None)


def json_list(cell: str) -> list[Any] | None:
    """None where it is no list."""
    if not cell.lstrip().startswith("["):
        return None
    try:
        found = json.loads(cell)
    except ValueError:
        return None
    return found if isinstance(found, list) else None


def names(column: ColumnData, cell: Any) -> list[str]:
    """The classes that a cell names. Errors: ValueError where the cell should be a list and is none."""
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
    # Strings, which most are, without text_of's other cases: histories have millions.
    texts = (x.strip() if isinstance(x, str) and x.isascii() else label_of(x) for x in found)
    return [text for text in texts if text]


def check_text(found: Sequence[str]) -> None:
    """Errors: ValueError where one is not valid UTF-8."""
    for name in found:
        fault = text_fault(name)
        if fault is not None:
            raise ValueError(fault)


def told(column: ColumnData, cells: Sequence[Any]) -> str:
    """What was found, for a person. cells: of the training rows."""
    if column.kind == "number":
        return f"{column.name} is a number (mean {column.mean:.6g}, deviation {column.std:.6g})"
    what = f"{column.name} is {'a list of' if column.kind == 'list' else 'one of'} {len(column.classes)} classes"
    if column.kind == "list":
        return what
    return what + category_notes(column, [text_of(cell) for cell in cells if not is_empty(cell)])


def plain(column: ColumnData) -> dict[str, Any]:
    """Its fields, as a config has them; thousands of classes are one text there, which is a hundred times as fast."""
    return {**asdict(column), "classes": json.dumps(column.classes, ensure_ascii=False)}


def column_data(fields: Mapping[str, Any]) -> ColumnData:
    """Of `plain`, or of its fields."""
    classes = fields.get("classes", ())
    return ColumnData(**{**fields, "classes": tuple(json.loads(classes) if isinstance(classes, str) else classes)})


def check_column(given: ColumnData, where: str) -> ColumnData:
    """Errors: ValueError for a kind that is none, or a separator of what is no list."""
    if given.kind not in (None, *KINDS):
        raise ValueError(
            f"{where}: got kind '{given.kind}' of '{given.name}', wanted one of {', '.join(KINDS)}"
            f"{near(str(given.kind), KINDS)}"
        )
    if given.separator is not None and (given.separator == "" or given.kind not in (None, "list")):
        raise ValueError(f"{where}: the separator of '{given.name}' is for lists, and no empty text; leave it out")
    return given
