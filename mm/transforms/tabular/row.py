"""Numbers and categories of a table's row -> tokens."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from mm.cells import text_of
from mm.cells.classes import ClassIndex
from mm.cells.numbers import value_of
from mm.configurable import Configurable
from mm.messages import listing, near
from mm.transforms.tabular.columns import check_text, column_data, is_empty, names
from mm.transforms.windows import check_multiple
from mm.types import ColumnData, EncodedInput


class TabularTransform(Configurable):
    """Convert the cells of a row to tokens (T, 3) float32: column, class and number of each cell, in order.

    A row is a mapping of column to cell. A list has a token for each of its elements; an empty cell has none, and a row
    without tokens is absent. Classes that no training row has are class 0, as is the class of a number. Numbers are
    standardised by the mean and the standard deviation of the training rows; the number of a class is 0.

    Args:
        columns: The columns, as `ColumnData` or mappings of its fields.
        max_length: Number of elements of a list that are read, the last ones; None: all.
        pad_multiple: Number of tokens to a multiple of which batches are padded.

    Raises:
        ValueError: If `max_length` is below 1. Reading raises it if the row is no mapping, has another column, or a
            cell can't be read.
    """

    def __init__(
        self,
        columns: Sequence[ColumnData | Mapping[str, Any]],
        max_length: int | None = None,
        pad_multiple: int = 1,
    ):
        if max_length is not None and max_length < 1:
            raise ValueError(f"max_length: got {max_length}, wanted at least 1 element of a list, or null for all")
        self.columns = [c if isinstance(c, ColumnData) else column_data(c) for c in columns]
        self.index = [ClassIndex(c.classes, first=1) for c in self.columns]
        self.known = {c.name for c in self.columns}
        self.max_length = max_length
        self.multiple = check_multiple(pad_multiple)
        self.random = False
        self.filler = torch.zeros(1, 3)
        self.meta: dict[str, Tensor] = {}

    def __call__(self, raw: Any, train: bool = False) -> EncodedInput:
        if not isinstance(raw, Mapping):
            raise ValueError(
                f"got {type(raw).__name__}, wanted columns and their cells: {{{', '.join(map(repr, self.known))}: ...}}"
            )
        for name in raw:
            if name not in self.known:
                raise ValueError(
                    f"no column '{name}'; there are {listing(list(self.known))}{near(str(name), self.known)}"
                )
        tokens: list[tuple[float, float, float]] = []
        cut = unknown = False
        for place, column in enumerate(self.columns):
            cell = raw.get(column.name)
            if is_empty(cell):
                continue
            try:
                if column.kind == "number":
                    tokens.append((place, 0, (value_of(text_of(cell)) - column.mean) / column.std))
                    continue
                found = self.classes(place, cell)
            except ValueError as error:
                raise ValueError(f"{column.name}: {error}") from None
            kept = found if self.max_length is None else found[-self.max_length :]
            cut |= len(kept) < len(found)
            unknown |= 0 in kept
            tokens += [(place, one, 0.0) for one in kept]
        return EncodedInput([torch.tensor(tokens)] if tokens else [], cut, unknown=unknown)

    def classes(self, place: int, cell: Any) -> list[int]:
        """Of a column's cell. Errors: ValueError where it should be a list and is none, or is no UTF-8."""
        index = self.index[place]
        if isinstance(cell, list | tuple):  # as most are, of known names: histories are read a thousand times a second
            classes = [index.get(name, 0) for name in cell if isinstance(name, str)]
            if len(classes) == len(cell) and 0 not in classes:
                return classes
        found = names(self.columns[place], cell)
        classes = [index.place(name) or 0 for name in found]
        if 0 in classes:
            check_text(found)
        return classes

    def size(self, raw: Any) -> int:
        """How many tokens a row has; 0 of one that can't be read."""
        try:
            return sum(map(len, self(raw).windows)) if raw is not None else 0
        except ValueError:
            return 0

    def finish(self, x: Tensor) -> Tensor:
        return x

    def lengths(self, raw: Sequence[Any]) -> list[float]:
        return [float(-(-self.size(x) // self.multiple) * self.multiple) for x in raw]
