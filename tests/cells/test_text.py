import math

import pyarrow
import pytest

from mm.cells import distinct, label_of, text_fault, text_of, undecodable
from mm.text_column import TextColumn


def test_texts() -> None:
    cells = [None, math.nan, 3.0, 3.5, " a ", 7, math.inf, [1.0, "b"]]
    assert [text_of(c) for c in cells] == ["", "", "3", "3.5", "a", "7", "inf", "1|b"]


def test_bytes_that_are_no_text() -> None:
    assert undecodable("caf\udce9")
    assert not undecodable("café")


def test_labels_are_composed() -> None:
    assert label_of(" cafe\u0301 ") == label_of("caf\u00e9") == "caf\u00e9"
    assert label_of("\uff21") == "\uff21"  # a wide A is another letter


@pytest.mark.parametrize("kind", ["list", "arrow"])
def test_distinct_labels(kind: str) -> None:
    cells = ["b", " b ", None, "cafe\u0301", "caf\u00e9", "b", ""]
    names, index = distinct(cells if kind == "list" else TextColumn(pyarrow.chunked_array([cells[:3], cells[3:]])))
    assert sorted(names) == ["", "b", "caf\u00e9"]
    assert [names[i] for i in index] == ["b", "b", "", "caf\u00e9", "caf\u00e9", "b", ""]
    assert distinct([1, 1.0, "1", 2.5, None, float("nan")])[0] == ["1", "2.5", ""]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"un caf\xe9", "byte 7 of the cell is 0xe9, after 'un caf'; save the file as UTF-8, for example iconv"),
        ("fünf".encode() + b"\xff", "byte 6 of the cell is 0xff, after 'fünf'"),
        (b"\xe9", "byte 1 of the cell is 0xe9; save"),
        ("ß\0".encode(), "byte 3 of the cell is NUL"),
        ("größer \U0001f600 \u2028".encode(), None),
    ],
)
def test_what_is_wrong_with_a_text(data: bytes, message: str | None) -> None:
    found = text_fault(data.decode("utf-8", "surrogateescape"))
    assert (found is None) if message is None else message in (found or "")


def test_half_a_surrogate_pair() -> None:
    assert "holds \\ud83d, one half of a surrogate pair" in (text_fault("ha \ud83d") or "")
