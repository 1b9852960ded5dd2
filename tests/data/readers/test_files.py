import gzip
import json
import re
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from mm.data.readers.delimited import TableFormat
from mm.data.readers.files import read_any, read_cells
from mm.data.readers.folders import read_folder
from mm.text_column import TextColumn


def write(folder: Path, name: str, data: bytes | str) -> Path:
    (folder / name).write_bytes(data.encode() if isinstance(data, str) else data)
    return folder / name


def refused(path: Path, message: str, **how: object) -> None:
    with pytest.raises(ValueError, match=message):
        read_cells(path, TableFormat(**how))


@pytest.mark.parametrize(
    "text",
    ["a,b\n1,x\n2,\n", "\ufeffa,b\r\n1,x\r\n2,\r\n", ' a , b\n"1",x\n\n2,\n', "a,b\r1,x\r2,", '\n"a",b\n1,"x"\n2,""\n'],
)
def test_spellings_of_a_csv(tmp_path: Path, text: str) -> None:
    assert read_cells(write(tmp_path, "a.csv", text)) == {"a": ["1", "2"], "b": ["x", ""]}


def test_quotes(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", 'a,b\n"one\ntwo, ""three""",x\n')
    assert read_cells(path) == {"a": ['one\ntwo, "three"'], "b": ["x"]}
    assert read_cells(write(tmp_path, "b.tsv", 'a\tb\n"one\tx\n')) == {"a": ['"one'], "b": ["x"]}
    assert read_cells(write(tmp_path, "c.tsv", 'a\tb\n"o\tne"\tx\n'), TableFormat(quotes=True)) == {
        "a": ["o\tne"],
        "b": ["x"],
    }
    refused(write(tmp_path, "d.csv", 'a,b\n1,x\n"open,x\n3,z\n'), r"d.csv: line 3: a quote is opened and never closed")
    refused(write(tmp_path, "e.csv", 'a,b\n1,x\n"o"pen,x\n'), r"e.csv: line 3: .*; write a quote inside a field")
    long = "x" * 200_000
    assert read_cells(write(tmp_path, "f.csv", f"a,b\n{long},y\n"))["a"] == [long]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,x\n2\n", "line 3: 1 fields, wanted 2 as in the first line; put a field that holds"),
        ('a,b\n"1\n1",x\n2,y,z\n', "line 4: 3 fields, wanted 2"),
        ("a,b,a\n1,2,3\n", "line 1: the column 'a' is there twice; rename one"),
        ("a, a\n1,2\n", "line 1: the column 'a' is there twice"),
        ("", "has no rows"),
        ("\n\n", "has no rows"),
        ("a,b\n", "has no rows"),
        (b"caf\xe9,b\n1,2\n", "line 1: the column names are not valid UTF-8; save the file as UTF-8"),
        (
            "a,b\n1,2\n".encode("utf-16"),
            "is encoded as UTF-16; save it as UTF-8, for example iconv -f utf-16",
        ),
        ("a\tb\n1,2\tx\n", "line 2: 2 fields, wanted 1 .*; put|line 2: 2 fields, wanted 1 .* is ',' the delimiter"),
    ],
)
def test_broken_tables(tmp_path: Path, text: str | bytes, message: str) -> None:
    refused(write(tmp_path, "rows.csv", text), message)


@pytest.mark.parametrize("name", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("file", ["a.csv", "a.tsv", "a.jsonl", "a.conll", "a.txt", "a.json", "a.txt.gz"])
def test_other_encodings_are_named_with_their_fix(tmp_path: Path, file: str, name: str) -> None:
    data = "text,label\nein Fluß,1\n".encode(name)
    command = "utf-32" if name == "utf-32" else name.replace("-le", "le").replace("-be", "be")
    message = f"is encoded as {name[:6].upper()}; save it as UTF-8, for example iconv -f {command} -t utf-8"
    refused(write(tmp_path, file, gzip.compress(data) if file.endswith("gz") else data), message)


def test_binary_data_is_no_table(tmp_path: Path) -> None:
    refused(write(tmp_path, "a.csv", b"a,b\n" + bytes(200)), "byte 5 is NUL, as many others are; it is damaged")


@pytest.mark.parametrize("quotes", [True, False])
def test_columns_of_texts_are_in_the_memory_of_arrow(tmp_path: Path, quotes: bool) -> None:
    rows = '1,"x"\r\n\n,"y, ""z"""\n' if quotes else "1,x\r\n\n,y\n"
    cells = read_cells(write(tmp_path, "a.csv", f"\ufeffa, b \n{rows}"), TableFormat(quotes))
    assert cells == {"a": ["1", ""], "b": ["x", 'y, "z"' if quotes else "y"]}
    assert all(isinstance(column, TextColumn) for column in cells.values())
    cells = read_cells(write(tmp_path, "a.jsonl", '{"a": "x", "b": 1}\n{"c": "\\ud800", "b": "y"}\n'))
    assert cells == {"a": ["x", None], "b": [1, "y"], "c": [None, "\ud800"]}
    assert [isinstance(column, TextColumn) for column in cells.values()] == [True, False, False]


def test_parquet_keeps_texts_in_the_memory_of_arrow_and_names_what_can_not_be_read(tmp_path: Path) -> None:
    wrong = pyarrow.array([b"x", b"caf\xe9", None]).view(pyarrow.string())
    table = pyarrow.table({"a": ["x", None, "y"], "wrong": wrong})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    cells = read_cells(tmp_path / "a.parquet")
    assert cells == {"a": ["x", None, "y"], "wrong": ["x", "caf\udce9", None]}
    assert isinstance(cells["a"], TextColumn)
    pyarrow.parquet.write_table(pyarrow.table({"a": ["x", "a\0b", None]}), tmp_path / "c.parquet")
    assert isinstance(read_cells(tmp_path / "c.parquet")["a"], list)  # in which the row is found
    dates = pyarrow.array([0, 2**62], pyarrow.timestamp("us"))
    pyarrow.parquet.write_table(pyarrow.table({"when": dates}), tmp_path / "b.parquet")
    refused(tmp_path / "b.parquet", "b.parquet: row 1, column 'when': the cell can't be read")


def test_undecodable_cells_are_kept_for_their_row(tmp_path: Path) -> None:
    cells = read_cells(write(tmp_path, "a.csv", b"a,b\ncaf\xe9,1\nNUL\x00,2\n"))
    assert cells["a"] == ["caf\udce9", "NUL\0"]


def test_header(tmp_path: Path) -> None:
    tsv = write(tmp_path, "a.tsv", "a good film\t1\nbad\t0\n")
    assert read_cells(tsv, TableFormat(header=["text", "label"])) == {
        "text": ["a good film", "bad"],
        "label": ["1", "0"],
    }
    assert read_cells(write(tmp_path, "a.csv", "\ufeffx,1\n"), TableFormat(header=["t", 0])) == {"t": ["x"], "0": ["1"]}
    refused(tsv, "line 1: 2 fields, but datamodule.column_names names 3: a, b, c", header=["a", "b", "c"])
    refused(tsv, "line 1: 2 fields, but datamodule.column_names names 1", header=["a"])
    refused(tsv, "datamodule.column_names: the column 'a' is there twice", header=["a", "a"])
    refused(write(tmp_path, "a.jsonl", "{}"), "a.jsonl names its columns itself; leave it out", header=["a"])


def test_jsonl(tmp_path: Path) -> None:
    text = '\ufeff{"a": 1, "b": ["x", "y"]}\r\n\n{"c": null, "a": NaN}\n'
    cells = read_cells(write(tmp_path, "a.jsonl", text))
    assert cells["b"] == [["x", "y"], None]
    assert cells["c"] == [None, None]
    assert cells["a"][0] == 1
    refused(write(tmp_path, "b.jsonl", '{"a": 1}\n{"a": \n'), "line 2: is no JSON")
    refused(write(tmp_path, "c.jsonl", '[{"a": 1}]'), "line 1: got list, wanted one object a line")
    refused(write(tmp_path, "d.jsonl", ""), "has no rows")
    refused(write(tmp_path, "e.jsonl", "[" * 100_000), "line 1: is no JSON")
    refused(write(tmp_path, "f.jsonl", '{"a": ' + "9" * 5000 + "}"), "line 1: is no JSON")
    refused(write(tmp_path, "g.jsonl", json.dumps({"a": 1}).encode("utf-16")), "UTF-16")


def test_parquet(tmp_path: Path) -> None:
    table = pyarrow.table({"label": pyarrow.array([3, None], pyarrow.int64()), "words": [["a"], []]})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    assert read_cells(tmp_path / "a.parquet") == {"label": [3, None], "words": [["a"], []]}
    refused(write(tmp_path, "b.parquet", "no parquet"), "can't be read as Parquet")
    good = (tmp_path / "a.parquet").read_bytes()
    refused(write(tmp_path, "c.parquet", good[:20] + bytes(60) + good[80:]), "can't be read as Parquet|has no rows")
    pyarrow.parquet.write_table(table.slice(0, 0), tmp_path / "d.parquet")
    refused(tmp_path / "d.parquet", "d.parquet: has no rows")
    twice = pyarrow.table([pyarrow.array([1]), pyarrow.array([2])], names=["a", "a"])
    pyarrow.parquet.write_table(twice, tmp_path / "e.parquet")
    refused(tmp_path / "e.parquet", "e.parquet: can't be read as Parquet: Multiple matches for .*a")


def test_no_file(tmp_path: Path) -> None:
    refused(tmp_path / "none.csv", "no such file .the current folder is")
    refused(tmp_path, "is a folder, wanted a file")
    refused(write(tmp_path, "a.xlsx", "x"), "got a.xlsx, wanted a file ending in .csv, .tsv")


def tree(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    return root


def test_a_folder_per_class(tmp_path: Path) -> None:
    root = tree(tmp_path, "cat/1.txt", "dog/2.md", "dog/more/3.TXT", "dog/4.csv", "dog/._2.txt", ".git/x/y.txt")
    cells = read_folder(root, "text")
    assert cells["id"] == ["cat/1.txt", "dog/2.md", "dog/more/3.TXT"]
    assert cells["target"] == ["cat", "dog", "dog"]
    assert cells["text"] == cells["id"]
    assert "split" not in cells


def test_a_folder_per_split(tmp_path: Path) -> None:
    cells = read_any(tree(tmp_path, "Train/cat/1.txt", "validation/dog/2.txt", "testing/dog/3.txt"), "text")
    assert cells["target"] == ["dog", "cat", "dog"] or cells["target"] == ["cat", "dog", "dog"]
    assert set(cells["split"]) == {"Train", "validation", "testing"}


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["train/cat/1.txt", "test/2.txt"], "test/2.txt lies in no class folder, wanted .*/test/CLASS/2.txt"),
        (["train/cat/1.txt", "test/cat/2.txt", "extra/3.txt"], "holds the split '(test|train)' and beside it 'extra'"),
        (["1.txt", "cat/2.txt"], "1.txt lies in no class folder, wanted .*/CLASS/1.txt"),
        (["cat/1.png"], "no file below .* ends in .txt, .md"),
    ],
)
def test_folders_that_would_be_misread(tmp_path: Path, names: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_folder(tree(tmp_path, *names), "text")


def test_a_flat_folder_is_for_prediction_only(tmp_path: Path) -> None:
    root = tree(tmp_path, "1.txt", "2.txt")
    assert set(read_folder(root, "text", flat=True)) == {"text", "id"}
    with pytest.raises(ValueError, match=re.escape("lies in no class folder")):
        read_folder(root, "text")


def test_conll(tmp_path: Path) -> None:
    (tmp_path / "a.conll").write_text("-DOCSTART- O\n\nAnn NNP B-who\nruns VBZ O\n\n\nRome\tB-place\n")
    cells = read_cells(tmp_path / "a.conll")
    assert cells == {"text": ["Ann runs", "Rome"], "target": [["B-who", "O"], ["B-place"]]}
    (tmp_path / "a.conll").write_text("Ann O\nruns\n")
    with pytest.raises(ValueError, match="line 2: got 'runs' alone, wanted a word and its tag"):
        read_cells(tmp_path / "a.conll")


def test_plain_texts_are_lines(tmp_path):
    (tmp_path / "a.txt").write_text("one two\n\nthree, four\n")
    with gzip.open(tmp_path / "a.en.gz", "wt") as file:
        file.write("one two\n \nthree, four")
    for name in ("a.txt", "a.en.gz"):
        assert read_cells(tmp_path / name) == {"text": ["one two", "three, four"]}
    with gzip.open(tmp_path / "a.csv.gz", "wt") as file:
        file.write("a,b\n1,2\n")
    refused(tmp_path / "a.csv.gz", "a.csv.gz: only plain texts are read packed; unpack it")
    (tmp_path / "b.txt").write_text("\n\n")
    with pytest.raises(ValueError, match="has no rows"):
        read_cells(tmp_path / "b.txt")


def test_other_delimiters_and_encodings(tmp_path):
    text = "name;town\nZoë;Köln\n'a;b';x\n"
    latin = write(tmp_path, "a.csv", text.replace("'", '"').encode("latin-1"))
    form = TableFormat(delimiter=";", encoding="latin-1")
    assert read_cells(latin, form) == {"name": ["Zoë", "a;b"], "town": ["Köln", "x"]}
    wide = write(tmp_path, "b.tsv", "name\ttown\nZoë\tKöln\n".encode("utf-16"))
    assert read_cells(wide, TableFormat(encoding="utf-16")) == {"name": ["Zoë"], "town": ["Köln"]}
    assert read_cells(write(tmp_path, "c.csv", "a|b\n1|2\n"), TableFormat(delimiter="|")) == {"a": ["1"], "b": ["2"]}
    for wrong, message in (
        (TableFormat(delimiter=";;"), "datamodule.delimiter: got ';;', wanted one character"),
        (TableFormat(encoding="latin-0"), "datamodule.encoding: got 'latin-0', wanted one that Python knows"),
        (TableFormat(encoding="ascii"), "a.csv: line 1: can't be read as ascii"),
    ):
        with pytest.raises(ValueError, match=message):
            read_cells(latin, wrong)
    with pytest.raises(ValueError, match="datamodule.encoding: is for .csv and .tsv files, got a.jsonl"):
        read_cells(write(tmp_path, "a.jsonl", "{}"), TableFormat(encoding="latin-1"))
