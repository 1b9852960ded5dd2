"""A column of texts in Arrow's memory, which needs a tenth of the memory of a list of strings."""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Any

import numpy as np
import pyarrow

STEP = 65_536  # rows that are Python strings at a time while a column is iterated


class TextColumn(Sequence[Any]):
    """Texts by row, which are valid UTF-8; None for an empty cell.

    It can be read like a list, and single rows can be replaced by any value.
    """

    __hash__ = None  # type: ignore[assignment]

    def __init__(self, array: pyarrow.ChunkedArray, replaced: dict[int, Any] | None = None):
        self.array = array
        self.chunks: list[pyarrow.Array] = array.chunks
        self.ends = list(accumulate(len(chunk) for chunk in self.chunks))
        self.replaced = dict(replaced or {})

    def __len__(self) -> int:
        return self.ends[-1] if self.ends else 0

    def __getitem__(self, row: Any) -> Any:
        if isinstance(row, slice):
            return [self[one] for one in range(*row.indices(len(self)))]
        row = range(len(self))[row]  # an index from the end, or beyond it
        if row in self.replaced:
            return self.replaced[row]
        place = bisect_right(self.ends, row)
        return self.chunks[place][row - (self.ends[place - 1] if place else 0)].as_py()

    def __setitem__(self, row: int, cell: Any) -> None:
        self.replaced[range(len(self))[row]] = cell

    def __iter__(self) -> Iterator[Any]:
        row = 0
        for chunk in self.chunks:
            for begin in range(0, len(chunk), STEP):
                cells = chunk.slice(begin, STEP).to_pylist()
                if self.replaced:
                    cells = [self.replaced.get(row + i, cell) for i, cell in enumerate(cells)]
                row += len(cells)
                yield from cells

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and len(self) == len(other) and all(a == b for a, b in zip(self, other))

    def __repr__(self) -> str:
        return f"TextColumn({self[:8]!r}{', ...' if len(self) > 8 else ''})"

    def copy(self) -> "TextColumn":
        """Return a column with the same cells, whose rows can be replaced independently."""
        return TextColumn(self.array, self.replaced)

    def distinct(self) -> tuple[list[Any], np.ndarray]:
        """Return the distinct cells, and the index of each row's cell among them, (N,)."""
        encoded = self.array.dictionary_encode().unify_dictionaries()
        cells: list[Any] = [*(encoded.chunks[0].dictionary.to_pylist() if encoded.chunks else []), None]
        none = len(cells) - 1
        parts = [chunk.indices.fill_null(none).to_numpy() for chunk in encoded.chunks]
        index = np.concatenate([np.zeros(0, dtype=np.int64), *parts])
        if not self.array.null_count:
            del cells[none]
        for row, cell in self.replaced.items():
            index[row] = len(cells)
            cells.append(cell)
        return cells, index


def join_columns(columns: Sequence[Sequence[Any]]) -> Sequence[Any]:
    """Concatenate the cells of several columns; texts stay in Arrow's memory."""
    if len(columns) == 1:
        return columns[0]
    if not all(isinstance(column, TextColumn) for column in columns):
        return [cell for column in columns for cell in column]
    chunks = [chunk.cast(pyarrow.large_string()) for column in columns for chunk in column.chunks]  # type: ignore[attr-defined]
    firsts = [0, *accumulate(len(column) for column in columns)]
    replaced = {
        first + row: cell
        for column, first in zip(columns, firsts)
        for row, cell in column.replaced.items()  # type: ignore[attr-defined]
    }
    return TextColumn(pyarrow.chunked_array(chunks, pyarrow.large_string()), replaced)
