import gzip

import pytest

from mm.data.readers.lines import read_lines
from mm.datamodules.parallel import ParallelDataModule
from mm.targets.text import TextTarget

HOW = {"batch_size": 2, "num_workers": 0, "on_error": "raise", "split": {"val": 0.0, "test": 0.0, "seed": 0}, "seed": 0}


def files(folder, **lines):
    for name, text in lines.items():
        (folder / name).write_text(text, "utf-8")
    return {name: str(folder / name) for name in lines}


def test_rows_are_lines_side_by_side(tmp_path):
    paths = files(tmp_path, a="a dog\na cat\n\n", b="ein Hund\r\neine Katze\r\n\r\n", c="a man\n", d="ein Mann")
    with gzip.open(tmp_path / "a.gz", "wt") as file:
        file.write("a dog\na cat\n\n")
    path = {
        "train": {"text": str(tmp_path / "a.gz"), "target": paths["b"]},
        "test": {"text": paths["c"], "target": paths["d"]},
    }
    module = ParallelDataModule(path, readers={"target": TextTarget("bpe", 300, 30, str(tmp_path))}, **HOW)
    table = module.table
    assert list(table.inputs["text"]) == ["a dog", "a cat", "", "a man"]
    assert [module.truth("target", row) for row in range(4)] == ["ein Hund", "eine Katze", None, "ein Mann"]
    assert table.split.tolist() == ["train"] * 3 + ["test"]


def test_bytes_and_ends(tmp_path):
    (tmp_path / "x").write_bytes(b"\xef\xbb\xbfone\nt\xffo\n")
    assert read_lines(tmp_path / "x") == ["one", "t\udcffo"]
    (tmp_path / "y.gz").write_bytes(b"no gzip")
    with pytest.raises(ValueError, match="can't be unpacked"):
        read_lines(tmp_path / "y.gz")
    with pytest.raises(ValueError, match="no file"):
        read_lines(tmp_path / "z")


def test_files_of_other_lengths_and_other_forms(tmp_path):
    paths = files(tmp_path, a="one\ntwo\n", b="eins\n")
    with pytest.raises(ValueError, match=r"path.train: files that go together differ in lines: .*a 2, .*b 1"):
        ParallelDataModule({"train": {"text": paths["a"], "target": paths["b"]}}, **HOW).read()
    with pytest.raises(ValueError, match="wanted files by split and column"):
        ParallelDataModule(paths["a"], **HOW).read()  # type: ignore[arg-type]
    for path in ({}, {"train": {}}, {"train": {"text": None}}):
        with pytest.raises(ValueError, match="wanted files by split and column"):
            ParallelDataModule(path, **HOW).read()  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"datamodule.path.val: has text, wanted text, target"):
        path = {"train": {"text": paths["a"], "target": paths["a"]}, "val": {"text": paths["a"]}}
        ParallelDataModule(path, **HOW).read()
