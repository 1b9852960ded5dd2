"""JSON lines -> columns of cells."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow

from mm.data.readers.encoding import check_encoding, check_header
from mm.data.table import Cells
from mm.text_column import TextColumn

PART = 2**20  # texts in one piece of a column: a piece holds at most 2 GB


def read_jsonl(path: Path) -> Cells:
    """One JSON object a line; a key that a line lacks is an empty cell."""
    cells: Cells = {}
    count = 0
    check_encoding(path)
    with path.open(encoding="utf-8-sig", errors="surrogateescape") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise ValueError(f"{path}: line {number}: is no JSON ({error}); wanted one object a line") from None
            if not isinstance(row, dict):
                raise ValueError(f"{path}: line {number}: got {type(row).__name__}, wanted one object a line")
            for name, cell in row.items():
                column = cells.setdefault(name, [])
                column += [None] * (count - len(column))
                column.append(cell)
            count += 1
    for column in cells.values():
        column += [None] * (count - len(column))
    check_header(list(cells), str(path))
    return {name: packed(column) for name, column in cells.items()}


def packed(cells: list[Any]) -> Sequence[Any]:
    """Return a column of texts, where some may be None, in Arrow's memory; any other as it is."""
    if not all(cell is None or type(cell) is str for cell in cells):
        return cells
    if any(cell is not None and "\0" in cell for cell in cells):  # named later, with its row
        return cells
    try:
        parts = [pyarrow.array(cells[i : i + PART], pyarrow.string()) for i in range(0, len(cells), PART)]
    except UnicodeEncodeError:  # lone surrogates, which are named later, with their row
        return cells
    return TextColumn(pyarrow.chunked_array(parts, pyarrow.string()))
