"""Transform of the cells of a tabular input into tokens."""

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
    """Convert the cells of a row to tokens (T, 3) float32, in the order of the columns.

    The three values of a token are the index of the column, the class index and the number. The raw input is a mapping
    from column name to cell. A number or a category becomes one token and a list one token per element. An empty cell
    has no token, and an input without tokens is absent. Class index 0 stands for classes that do not occur in the
    training rows, and is also used in the tokens of numbers. Numbers are standardised with the mean and the standard
    deviation of the training rows; the tokens of classes have the number 0.

    Args:
        columns: Columns, as `ColumnData` or as mappings of its fields.
        max_length: Maximum number of elements of a list; of longer lists the last elements are used. None: no limit.
        pad_multiple: Number of tokens to a multiple of which batches are padded.

    Raises:
        ValueError: If `max_length` is below 1. Calls of the transform raise it if the raw input is not a mapping, has
            an unknown column, or contains an invalid cell.
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
        """Return the class indices in a cell; 0 stands for an unknown class.

        Args:
            place: Index of the column.
            cell: The cell.

        Raises:
            ValueError: If the column contains lists and the cell is not a list, or if a name is not valid UTF-8.
        """
        index = self.index[place]
        if isinstance(cell, list | tuple):  # fast path for lists of known names, such as user histories
            classes = [index.get(name, 0) for name in cell if isinstance(name, str)]
            if len(classes) == len(cell) and 0 not in classes:
                return classes
        found = names(self.columns[place], cell)
        classes = [index.place(name) or 0 for name in found]
        if 0 in classes:
            check_text(found)
        return classes

    def size(self, raw: Any) -> int:
        """Return the number of tokens of a row, or 0 if the row is absent or can't be converted."""
        try:
            return sum(map(len, self(raw).windows)) if raw is not None else 0
        except ValueError:
            return 0

    def finish(self, x: Tensor) -> Tensor:
        return x

    def lengths(self, raw: Sequence[Any]) -> list[float]:
        return [float(-(-self.size(x) // self.multiple) * self.multiple) for x in raw]
