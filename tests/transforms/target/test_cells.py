import math

from mm.transforms.target.cells import text_of, undecodable


def test_texts() -> None:
    cells = [None, math.nan, 3.0, 3.5, " a ", 7, math.inf, [1.0, "b"]]
    assert [text_of(c) for c in cells] == ["", "", "3", "3.5", "a", "7", "inf", "1|b"]


def test_bytes_that_are_no_text() -> None:
    assert undecodable("caf\udce9")
    assert not undecodable("café")
