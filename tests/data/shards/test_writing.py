"""What `mm shard` writes, read by others."""

import json
import tarfile
from pathlib import Path

import pyarrow.parquet
import pytest
from conftest import write_manifest

from mm.data.shards.reading import INDEX
from mm.data.shards.writing import ahead, column
from mm.datamodules.manifest import ManifestDataModule
from mm.datamodules.shards import write_shards

COLUMNS = {"text": "words", "vision": "photo", "audio": "sound", "target": "colour"}
ROLES = ("text", "vision", "audio", "inputs", "target", "targets", "id", "split", "group")


@pytest.fixture
def pack(tmp_path: Path, shared: dict):
    """pack(path) -> the module, what the index says, and the table; into out/"""

    def run(path: object, columns: dict = COLUMNS, size: int = 100_000, **changed):
        given = shared | {"split": {}, "draw_split": False} | changed
        module = ManifestDataModule(path=path, columns=dict.fromkeys(ROLES) | columns, **given)
        return module, *write_shards(module, tmp_path / "out", size, 0)

    return run


def members(folder: Path) -> dict[str, bytes]:
    found = {}
    for path in sorted(folder.glob("*.tar")):
        with tarfile.open(path) as tar:
            for member in tar:
                file = tar.extractfile(member)
                assert file is not None
                assert member.name not in found
                found[member.name] = file.read()
    return found


def test_bytes_are_as_they_were(manifest: Path, pack, tmp_path: Path) -> None:
    _, about, table = pack(str(manifest))
    found = members(tmp_path / "out")
    assert len(found) == 60 * 4
    for row in range(60):
        assert found[f"{row:09d}.vision.png"] == (manifest.parent / f"media/{row}.png").read_bytes()
        assert found[f"{row:09d}.audio.wav"] == (manifest.parent / f"media/{row}.wav").read_bytes()
        assert found[f"{row:09d}.text.txt"].decode() == table.inputs["text"][row]
    assert json.loads(found["000000004.json"]) == {"colour": "green", "id": "r4", "split": "train"}
    assert sum(shard[2] for shard in about.shards) == 60
    assert [shard[1] for shard in about.shards] == [p.stat().st_size for p in sorted((tmp_path / "out").glob("*.tar"))]
    index = pyarrow.parquet.read_table(tmp_path / "out" / INDEX).to_pydict()
    assert index["colour"][:3] == ["red", "green", "blue"]
    assert index["mm.seconds.audio"][:2] == pytest.approx([1200 / 8000, 1300 / 8000])
    assert "words" not in index  # texts may be large: they are in the shards


def test_a_split_is_together_and_training_rows_are_shuffled(manifest: Path, pack, tmp_path: Path) -> None:
    pack(str(manifest))
    rows = [int(name[:9]) for name in members(tmp_path / "out") if name.endswith(".json")]
    splits = [("train", "train", "train", "val", "test")[row // 3 % 5] for row in rows]
    assert splits == ["train"] * 36 + ["val"] * 12 + ["test"] * 12
    assert rows[:36] != sorted(rows[:36])
    assert rows[36:48] == sorted(rows[36:48])


def test_the_same_twice(manifest: Path, pack, tmp_path: Path) -> None:
    _, first, _ = pack(str(manifest))
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    (tmp_path / "out").rename(tmp_path / "first")
    _, second, _ = pack(str(manifest))
    assert first == second
    assert before == {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}


def broken(folder: Path) -> Path:
    """Row 1 has no picture, row 3 a broken one, row 4 a sound that is none, row 6 the id of row 5."""
    path = write_manifest(folder, ids=lambda row, line: line.update(id="r5") if row == 6 else None)
    (folder / "media/1.png").unlink()
    (folder / "media/3.png").write_bytes((folder / "media/3.png").read_bytes()[:200])
    (folder / "media/4.wav").write_bytes(b"no sound")
    return path


def test_unreadable_rows(pack, tmp_path: Path) -> None:
    path = broken(tmp_path / "data")
    with pytest.raises(ValueError, match=r"rows.csv: row 1 \(id 'r1'\), column 'photo': no file"):
        pack(str(path))
    module, about, _ = pack(str(path), on_error="drop")
    assert {(row, where) for row, where in module.faults} == {(1, "photo"), (3, "photo"), (4, "sound"), (6, "id")}
    assert sum(shard[2] for shard in about.shards) == 56
    index = pyarrow.parquet.read_table(tmp_path / "out" / INDEX).to_pydict()
    assert index["id"][:4] == ["r0", "r2", "r5", "r7"]
    (tmp_path / "out").rename(tmp_path / "dropped")
    _, about, _ = pack(str(path), on_error="missing")
    assert sum(shard[2] for shard in about.shards) == 59  # no cell stands in for an id
    found = members(tmp_path / "out")
    assert not {"000000001.vision.png", "000000003.vision.png", "000000004.audio.wav"} & set(found)
    assert "000000003.audio.wav" in found


def test_half_written_is_no_folder(pack, tmp_path: Path) -> None:
    path = write_manifest(tmp_path / "data")
    (tmp_path / "data/media/59.wav").write_bytes(b"no sound")
    with pytest.raises(ValueError, match="row 59"):
        pack(str(path))
    assert [p.name for p in tmp_path.iterdir()] == ["data"]
    (tmp_path / "out.part").mkdir()
    (tmp_path / "out.part/000000.tar").write_bytes(b"the user's own")
    pack(str(path), on_error="drop")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["data", "out", "out.part"]
    with pytest.raises(ValueError, match=r"out: .*/out is not empty; choose another folder"):
        pack(str(path), on_error="drop")


def test_rows_keep_their_names(pack, tmp_path: Path) -> None:
    path = write_manifest(tmp_path / "data", ids=lambda row, line: line.pop("id"))
    (tmp_path / "data/media/0.wav").unlink()
    pack(str(path), on_error="drop")
    assert pyarrow.parquet.read_table(tmp_path / "out" / INDEX)["id"].to_pylist()[:3] == ["1", "2", "3"]


def test_rows_without_a_split_of_a_file_with_some_are_left_out(pack, tmp_path: Path) -> None:
    path = write_manifest(tmp_path / "data", gaps=lambda row, line: line.update(split="") if row % 2 else None)
    _, about, _ = pack(str(path))
    assert sum(shard[2] for shard in about.shards) == 30


def test_what_can_not_be_sharded(manifest: Path, pack, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="mm shard takes one file"):
        pack([str(manifest), str(manifest)])
    with pytest.raises(ValueError, match="no column 'color'"):
        pack(str(manifest), columns=COLUMNS | {"target": "color"})
    path = write_manifest(tmp_path / "data", none=lambda row, line: line.update(sound=""))
    with pytest.raises(ValueError, match="no row has the input 'audio'; leave it out with datamodule.inputs"):
        pack(str(path))
    _, about, _ = pack(str(path), inputs=["text"])
    assert list(about.inputs) == ["text"]


def test_cells_of_several_kinds() -> None:
    assert column([1, None, 3]).to_pylist() == [1, None, 3]
    assert column([["a", "b"], [], None]).to_pylist() == [["a", "b"], [], None]
    assert column([1, "a", None]).to_pylist() == ["1", "a", ""]


@pytest.mark.parametrize("count", [0, 5, 32, 33, 200])
def test_ahead_keeps_the_order(count: int) -> None:
    assert list(ahead(lambda row: row * 2, list(range(count)), 2)) == [row * 2 for row in range(count)]
