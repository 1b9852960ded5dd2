"""A column in Arrow's memory, against a list of the same cells."""

import pickle

import numpy as np
import pyarrow
import pytest

from mm.text_column import TextColumn, join_columns

CELLS = ["b", None, "a", "", "b", "é\n", "a"]


@pytest.fixture
def column() -> TextColumn:
    return TextColumn(pyarrow.chunked_array([CELLS[:2], CELLS[2:2], CELLS[2:]], pyarrow.string()))


def test_it_reads_as_a_list(column) -> None:
    assert len(column) == len(CELLS)
    assert list(column) == CELLS
    assert [column[row] for row in range(-7, 7)] == CELLS * 2
    assert [column[np.int64(2)], column[1:4], column[::-1]] == [CELLS[2], CELLS[1:4], CELLS[::-1]]
    assert column == CELLS
    assert column != [*CELLS[:-1], "x"]
    assert column != CELLS[:-1]
    assert list(pickle.loads(pickle.dumps(column))) == CELLS
    for row in (7, -8):
        with pytest.raises(IndexError):
            column[row]
    assert list(TextColumn(pyarrow.chunked_array([], pyarrow.string()))) == []
    assert TextColumn(pyarrow.chunked_array([], pyarrow.string())).distinct()[0] == []


def test_rows_are_replaced_in_a_copy_alone(column) -> None:
    own = column.copy()
    own[2], own[-1] = None, ["x", "y"]
    assert list(own) == [*CELLS[:2], None, *CELLS[3:6], ["x", "y"]]
    assert (own[2], own[6]) == (None, ["x", "y"])
    assert list(column) == CELLS


def test_distinct_cells(column) -> None:
    cells, index = column.distinct()
    assert sorted(cells, key=str) == ["", None, "a", "b", "é\n"]
    assert [cells[i] for i in index] == CELLS
    column[0] = "new"
    cells, index = column.distinct()
    assert [cells[i] for i in index] == ["new", *CELLS[1:]]
    cells, index = TextColumn(pyarrow.chunked_array([["x"], ["y", "x"]])).distinct()
    assert (sorted(cells), [cells[i] for i in index]) == (["x", "y"], ["x", "y", "x"])


def test_columns_are_joined(column) -> None:
    other = TextColumn(pyarrow.chunked_array([["z"]], pyarrow.large_string()))
    other[0] = "w"
    both = join_columns([column, other, column])
    assert isinstance(both, TextColumn)
    assert list(both) == [*CELLS, "w", *CELLS]
    assert join_columns([column, [1, None]]) == [*CELLS, 1, None]
    assert join_columns([column]) is column
