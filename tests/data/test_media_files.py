"""Media files that a table names: which are there, what is said of those that are not."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mm.data import media_files
from mm.data.media_files import FOLDER, NO_FILE, file_faults, stat_files
from mm.modalities import get_modality


def faults(folder: Path, *cells: object) -> dict[int, str]:
    found = get_modality("vision").read_cells(cells, folder)
    return {f.row: f.message for f in file_faults(found, stat_files(found), cells, "photo", folder)}


def test_each_file_is_asked_for_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.png").write_bytes(b"12345")
    (tmp_path / "b").mkdir()
    asked = []
    stat = media_files.os.stat
    monkeypatch.setattr(media_files.os, "stat", lambda path: asked.append(path) or stat(path))
    found = get_modality("vision").read_cells(["a.png", "", "b", "c.png", None, "\0"], tmp_path)
    stats = stat_files(found)
    monkeypatch.undo()
    assert stats[:, 0].tolist() == [5, NO_FILE, FOLDER, NO_FILE, NO_FILE, NO_FILE]
    assert stats[0, 1] == (tmp_path / "a.png").stat().st_mtime_ns
    assert asked == [path for path in found if path is not None]


def test_what_is_no_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "whole.png").write_bytes(b"12345")
    (tmp_path / "empty.png").write_bytes(b"")
    found = faults(tmp_path, "whole.png", "", ".", "empty.png", 5)
    assert found == {
        2: f"{tmp_path} is a folder, wanted a file",
        3: f"the file {tmp_path}/empty.png is empty (0 bytes)",
        4: "got int, wanted the path of a file as text",
    }


def test_missing_files_are_counted(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"12345")
    found = faults(tmp_path, "a.png", "b.png", "a.png", "c.png", "")
    assert found[1] == f"no file {tmp_path}/b.png (the first of 2 missing files of 4 that 'photo' names)"
    assert found[3] == f"no file {tmp_path}/c.png"
    assert faults(tmp_path, "a.png", "b.png")[1] == f"no file {tmp_path}/b.png"


@pytest.mark.parametrize(
    ("cell", "hint"),
    [
        ("https://example.org/a.png", "; files of https:// are not read: copy them to this machine"),
        ("s3://bucket/a.png", "; files of s3:// are not read"),
        ("gs://bucket/a.png", "or store them with mm shard"),
        ("file:///data/a.png", "; file:// is not understood: write the path alone, /folder/file; paths are relative"),
        ("~/a.png", "; '~' is not expanded"),
        ("C:\\data\\a.png", "; this looks like a path of Windows: write it with /"),
        ("C:/data/a.png", "; this looks like a path of Windows"),
        ("photos\\a.png", "; this looks like a path of Windows"),
    ],
)
def test_paths_that_are_not_understood(tmp_path: Path, cell: str, hint: str) -> None:
    assert hint in faults(tmp_path, cell)[0]


def test_a_file_may_have_a_strange_name(tmp_path: Path) -> None:
    (tmp_path / "~a.png").write_bytes(b"12345")
    (tmp_path / "b\\c.png").write_bytes(b"12345")
    assert faults(tmp_path, "~a.png", "b\\c.png") == {}


def test_the_first_missing_file_of_a_table_says_how_many_there_are(make, tmp_path: Path) -> None:
    Image.new("L", (4, 4)).save(tmp_path / "a.png")
    rows = "photo,split\n" + "".join(f"{'a' if k % 3 else k}.png,train\n" for k in range(30))
    with pytest.raises(ValueError, match=r"row 0 .*no file .*0.png \(the first of 10 missing files of 30 that 'photo'"):
        make("a.csv", rows, vision="photo", split={"val": 0, "test": 0, "seed": 0})
    kept = make("a.csv", rows, vision="photo", split={"val": 0, "test": 0, "seed": 0}, on_error="missing")
    assert kept.table.files["vision"].shape == (30, 3)
    assert np.flatnonzero(kept.table.files["vision"][:, 0] == NO_FILE).tolist() == list(range(0, 30, 3))
    assert len(kept.faults) == 10
