"""A row's cells as tokens, beside tokens written by hand."""

from dataclasses import asdict

import pytest

from mm.batching import Sample, collate
from mm.transforms.tabular.row import TabularTransform
from mm.types import ColumnData

COLUMNS = [
    ColumnData(name="age", kind="number", mean=40.0, std=20.0),
    ColumnData(name="city", kind="category", classes=("Bern", "Ulm")),
    ColumnData(name="likes", kind="list", separator="|", classes=("a", "b", "c")),
]


def tokens(raw, **how):
    read = TabularTransform(COLUMNS, **how)(raw)
    return [x.tolist() for x in read.windows], read.cut, read.unknown


def test_tokens_by_hand():
    told = tokens({"age": "50", "city": "Ulm", "likes": "c|a"})
    assert told == ([[[0, 0, 0.5], [1, 2, 0], [2, 3, 0], [2, 1, 0]]], False, False)
    assert tokens({"likes": ["b"], "age": 0}) == ([[[0, 0, -2], [2, 2, 0]]], False, False)
    assert tokens({"city": "Oslo", "likes": "d|a"}) == ([[[1, 0, 0], [2, 0, 0], [2, 1, 0]]], False, True)
    assert tokens({"city": "", "age": None}) == tokens({}) == tokens({"likes": []}) == ([], False, False)


def test_of_a_long_list_the_end_is_read():
    assert tokens({"likes": "a|b|c"}, max_length=2) == ([[[2, 2, 0], [2, 3, 0]]], True, False)
    assert tokens({"likes": "d|b|c"}, max_length=2)[2] is False  # what is cut is not read
    with pytest.raises(ValueError, match="max_length: got 0, wanted at least 1"):
        TabularTransform(COLUMNS, max_length=0)


def test_plain_data_makes_the_same():
    plain = TabularTransform([{**asdict(c), "classes": list(c.classes)} for c in COLUMNS])
    raw = {"age": 1, "city": "Bern", "likes": "b"}
    assert plain(raw).windows[0].equal(TabularTransform(COLUMNS)(raw).windows[0])
    assert plain.columns == COLUMNS


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        ("Bern", "got str, wanted columns and their cells"),
        ({"citty": "Bern"}, "no column 'citty'; .*did you mean 'city'"),
        ({"age": "old"}, "age: got 'old', wanted a number"),
        ({"city": "\udcff"}, "city: not valid UTF-8: byte 1 of the cell is 0xff; save the file"),
    ],
)
def test_what_can_not_be_read(raw, said):
    with pytest.raises(ValueError, match=said):
        TabularTransform(COLUMNS)(raw)


def test_lengths_and_padding():
    row = TabularTransform(COLUMNS, pad_multiple=4)
    raws = [{"age": 1}, {"likes": "a|b|c", "age": 1, "city": "Ulm"}, None, {"age": "old"}]
    assert row.lengths(raws) == [4, 8, 0, 0]
    batch = collate([Sample({"tabular": row(raw) if raw else None}, {}, i) for i, raw in enumerate(raws[:3])],
                    {"tabular": row})  # fmt: skip
    assert batch.inputs["tabular"].shape == (3, 8, 3)
    assert batch.masks["tabular"].sum(1).tolist() == [1, 5, 0]
    assert not batch.inputs["tabular"][~batch.masks["tabular"]].any()
