"""Decision whether the cells of a column are numbers or names, with checks for likely mistakes."""

from collections.abc import Callable, Sequence

from mm.cells.numbers import HINTS, MOST_OTHERS, NUMBERLIKE, form_of, read_contents
from mm.messages import listing
from mm.types import ColumnData

SEVERAL = 20  # maximum number of different dates in a column of categories, such as days of a survey
FEW_CELLS = 10  # with fewer cells, a column with as many classes as cells is not suspicious


def check_names(column: str, texts: Sequence[str], rows: Sequence[int], name_row: Callable[[int], str]) -> None:
    """Raise an error if a column would be read as categories although nearly all of its cells are numbers or dates.

    Args:
        column: Name of the column.
        texts: Cells of the training rows that are not empty, at least one of which is not a number.
        rows: Index of the row of each cell.
        name_row: Function from the index of a row to its name in messages.

    Raises:
        ValueError: If at least 90 % of the cells are numbers or similar to numbers (missing values, decimal commas,
            infinite values), or if most of the cells are dates and there are more than SEVERAL different ones. The
            message names the first such cell, its row and the remedy.
    """
    found = read_contents(texts, MOST_OTHERS)
    if found is None:
        return
    counts, total = found.counts, len(texts)
    as_category = f"or, if these are names, {{column: {column}, kind: category}}"
    if counts["comma"] + counts["grouped"] > total / 2:
        as_category += f", or, if they are lists, {{column: {column}, separator: ','}}"
    if counts["date"] > total / 2:
        dates = {text for text in texts if form_of(text) == "date"}
        if len(dates) > SEVERAL:
            first = next(i for i, text in enumerate(texts) if text in dates)
            raise ValueError(
                f"column '{column}': {counts['date']} of {total} cells are dates or times, such as '{texts[first]}' "
                f"({name_row(rows[first])}), and {len(dates)} of them differ: each would be a class of its own; write "
                f"them as numbers, such as days since a date, or the year, the month and the hour, {as_category}"
            )
        return
    near = sum(counts[form] for form in NUMBERLIKE)
    if near < (1 - MOST_OTHERS) * total or not counts["number"] + counts["comma"] + counts["grouped"]:
        return
    odd = set(found.odd)
    first = next(i for i, text in enumerate(texts) if text in odd)
    wrong = total - counts["number"]
    more = f" and {wrong - 1} more are not" if wrong > 1 else " is not"
    others = [text for text in found.odd if text != texts[first]][:3]
    such = f" (such as {listing([repr(text) for text in others])})" if others else ""
    form = form_of(texts[first])
    hint = f" ({HINTS[form]})" if form in HINTS else ""
    raise ValueError(
        f"column '{column}': {counts['number']} of {total} cells are numbers; '{texts[first][:60]}' "
        f"({name_row(rows[first])}){more}{such}. Mend them{hint}, or set {{column: {column}, kind: number}} (then each "
        f"is a fault of its row, and datamodule.on_error=missing takes it as empty), {as_category}"
    )


def category_notes(column: ColumnData, texts: Sequence[str]) -> str:
    """Return a warning about a column of categories that looks like an identifier or has a class for missing values.

    Args:
        column: The column, with its classes.
        texts: Cells of the training rows that are not empty.

    Returns:
        A text to append to the description of the column; empty if there is nothing to warn about.
    """
    different = len(column.classes)
    if different == len(texts) >= FEW_CELLS:
        return ", as many as there are cells: is it an identifier? Other rows have none of these; leave it out"
    names = [name for name in column.classes if form_of(name) == "missing"]
    if names:
        return f"; {listing([repr(name) for name in names])} is one of them: leave cells empty where nothing is known"
    return ""
