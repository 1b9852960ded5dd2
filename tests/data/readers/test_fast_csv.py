"""Arrow's reader against Python's csv module, on files of every odd shape."""

import csv
import io
import random
from pathlib import Path

import pytest

from mm.data.readers import fast_csv
from mm.data.readers.fast_csv import read_fast
from mm.text_column import TextColumn

PIECES = ["a", "ü", ",", "\t", '"', '""', "\n", "\r\n", "\r", " ", "x" * 9, "\ufeff", "\u2028", "\x0b", "\0", "#", "\\"]


def by_python(data: bytes, delimiter: str, quotes: bool) -> list[list[str]] | None:
    """Return the rows; None where there is no header, or a row or a quote is wrong."""
    quoting = csv.QUOTE_MINIMAL if quotes else csv.QUOTE_NONE
    text = io.StringIO(data.decode("utf-8-sig"), newline="")
    try:
        rows = [row for row in csv.reader(text, delimiter=delimiter, quoting=quoting, strict=quotes) if row]
    except csv.Error:
        return None
    return rows if rows and all(len(row) == len(rows[0]) for row in rows) else None


@pytest.mark.parametrize("chunk", [1, 2, 3, 2**22])
def test_the_same_cells_or_none(tmp_path: Path, chunk: int, monkeypatch) -> None:
    monkeypatch.setattr(fast_csv, "CHUNK", chunk)
    draw, path, read = random.Random(chunk), tmp_path / "a.csv", 0
    for _ in range(400):
        width, delimiter, quotes = draw.randint(1, 3), draw.choice(",\t"), draw.random() < 0.7
        cells = [["".join(draw.choices(PIECES, k=draw.randint(0, 3))) for _ in range(width)] for _ in range(4)]
        file = io.StringIO(newline="")
        if draw.random() < 0.5:
            csv.writer(file, delimiter=delimiter, lineterminator=draw.choice(["\n", "\r\n"])).writerows(cells)
        else:
            file.write("\n".join(delimiter.join(row) for row in cells))
        path.write_bytes(draw.choice([b"", b"\xef\xbb\xbf"]) + file.getvalue().encode())
        found = read_fast(path, delimiter, quotes, None)
        if found is not None:
            rows = by_python(path.read_bytes(), delimiter, quotes)
            assert rows is not None
            names = [name.strip() for name in rows[0]]
            assert {name: list(column) for name, column in found.items()} == {
                name: [row[i] for row in rows[1:]] for i, name in enumerate(names)
            }
            read += 1
    assert read > 40


def test_what_is_valid_is_read_fast(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('\ufeff text ,"la""bel"\n\n"one\r\ntwo, ""three""",\n"",ß\n', encoding="utf-8", newline="")
    found = read_fast(path, ",", True, None)
    assert found == {"text": ['one\r\ntwo, "three"', ""], 'la"bel': ["", "ß"]}
    assert all(isinstance(column, TextColumn) for column in found.values())
    path.write_text("one,1\ntwo,2")
    assert read_fast(path, ",", True, ["text", "label"]) == {"text": ["one", "two"], "label": ["1", "2"]}


BROKEN = [b"", b"\n", b"a,b\n1\n", b"a,a\n1,2\n", b"a,b\n1,caf\xe9\n", b"caf\xe9,b\n1,2\n", b"a,b\n1,x\0\n"]
ODD = [b'a,b\n1,x"y"\n', b'a,b\n1,"x"y\n', b'a,b\n1,"x\n', b"a,b\r1,2\r"]


@pytest.mark.parametrize("data", [*BROKEN, *ODD])
def test_what_python_has_to_read_or_to_refuse(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.csv").write_bytes(data)
    assert read_fast(tmp_path / "a.csv", ",", True, None) is None
