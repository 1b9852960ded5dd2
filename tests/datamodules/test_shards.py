"""Rows read from shards are the rows of the file that was sharded."""

import json
import pickle
import shutil
import tarfile
from collections import Counter
from pathlib import Path

import fsspec
import pyarrow.parquet
import pytest
import torch
from conftest import write_manifest

from mm.data.module import DataModule
from mm.data.shards.reading import INDEX, Store
from mm.datamodules.manifest import ManifestDataModule
from mm.datamodules.shards import ShardsDataModule, write_shards
from mm.transforms.stored import Stored, StoredError

COLUMNS = {"text": "words", "vision": "photo", "audio": "sound", "target": "colour"}
ROLES = ("inputs", "targets", "id", "split", "group")


@pytest.fixture
def plain(manifest: Path, shared: dict, transforms: dict):
    """A datamodule over the manifest itself."""

    def build(path: Path = manifest, columns: dict = COLUMNS, **changed) -> ManifestDataModule:
        module = ManifestDataModule(path=str(path), columns=dict.fromkeys(ROLES) | columns, **shared | changed)
        return module

    return build


@pytest.fixture
def packed(plain, tmp_path: Path):
    """packed() -> a folder of shards of about 15 rows, of the manifest or of another file"""

    def build(name: str = "shards", size: int = 120_000, **changed) -> Path:
        write_shards(plain(draw_split=False, **changed), tmp_path / name, size, 0)
        return tmp_path / name

    return build


@pytest.fixture
def stream(tmp_path: Path, shared: dict, transforms: dict):
    """stream(path) -> a datamodule over shards, ready to read"""

    def build(path: object, **changed) -> ShardsDataModule:
        module = ShardsDataModule(path=path, cache=str(tmp_path / "cache"), **shared | changed)
        module.use({name: transforms[data.modality] for name, data in module.table.spec.inputs.items()})
        return module

    return build


def read(module: DataModule, rows: list[int]):
    batch = module.batch(rows)
    return [*batch.inputs.values(), *batch.masks.values(), *batch.targets.values(), batch.row]


def test_equals_the_file(plain, packed, stream, transforms: dict) -> None:
    one, other = plain(), stream(str(packed()))
    one.use(transforms)
    assert other.table.spec == one.table.spec
    assert other.table.ids == one.table.ids
    assert other.table.split.tolist() == one.table.split.tolist()
    assert other.columns == COLUMNS
    for a, b in zip(read(one, list(range(60))), read(other, list(range(60)))):
        assert torch.equal(a, b)
    for name in transforms:
        assert one.lengths([name])[name].tolist() == pytest.approx(other.lengths([name])[name].tolist())
    assert other.table.name(7) == "shards: row 7 (id 'r7')"
    seen = [batch.row.tolist() for batch in other.train_dataloader()]
    assert [batch.row.tolist() for batch in one.train_dataloader()] == seen  # few shards: shuffled as ever


def test_without_a_split_column_it_is_split_as_the_file_is(plain, packed, stream, tmp_path: Path) -> None:
    path = write_manifest(tmp_path / "data", none=lambda row, line: line.pop("split"))
    folder = packed(path=path)
    assert stream(str(folder)).table.split.tolist() == plain(path).table.split.tolist()
    columns = COLUMNS | {"group": "size"}
    folder = packed("grouped", path=path, columns=columns)
    assert stream(str(folder)).table.split.tolist() == plain(path, columns).table.split.tolist()


def test_only_some_inputs(packed, stream) -> None:
    module = stream(str(packed()), inputs=["audio"])
    assert list(module.table.spec.inputs) == ["audio"]
    assert list(module.batch([0]).inputs) == ["audio"]


def test_absent_cells_stay_absent(packed, stream, tmp_path: Path) -> None:
    path = write_manifest(
        tmp_path / "data", gaps=lambda row, line: line.update(words="", photo="", colour="") if row == 3 else None
    )
    module = stream(str(packed(path=path)))
    batch = module.batch([3, 4])
    assert [mask.any(1).tolist() for mask in batch.masks.values()] == [[False, True], [False, True], [True, True]]
    assert batch.targets["target"].tolist() == [-100, 1]


def test_far_shards_are_read_a_few_at_a_time(packed, stream) -> None:
    folder = packed(size=20_000)
    module = stream(str(folder), shuffle_window=2, batch_size=2)
    shard = module.table.shard
    assert shard.max() >= 10
    store = module.table.inputs["audio"].store
    opened = Counter()
    found = store.map
    store.map = lambda shard: opened.update([shard.name]) or found(shard)
    for epoch in range(2):
        opened.clear()
        loader = module.train_dataloader()
        loader.order.set_epoch(epoch)
        rows = torch.cat([batch.row for batch in loader])
        assert sorted(rows.tolist()) == module.rows("train").tolist()
        assert set(opened.values()) == {1}
        assert len(store.open) <= 4
        store.open.clear()
        opened.clear()
    list(module.loader("val"))
    assert set(opened.values()) == {1}


@pytest.mark.parametrize("workers", [0, 2])
def test_by_url(packed, stream, tmp_path: Path, workers: int) -> None:
    folder = packed(size=20_000)
    local = stream(str(folder), shuffle_window=2)
    far = stream(folder.as_uri(), shuffle_window=2, num_workers=workers)
    assert [b.row.tolist() for b in far.train_dataloader()] == [b.row.tolist() for b in local.train_dataloader()]
    (cache,) = (tmp_path / "cache").iterdir()
    assert 0 < len(list(cache.glob("*.tar"))) <= 4
    assert not list(cache.glob("*.part"))
    (cache / "000000.tar").unlink(missing_ok=True)  # another process makes room
    assert all(torch.equal(a, b) for a, b in zip(read(local, [0, 30, 59]), read(far, [0, 30, 59])))


def test_one_file_in_shards_of_two_sizes_by_url(packed, stream) -> None:
    for name, size in (("large", 120_000), ("small", 60_000)):
        folder = packed(name, size)
        fetched, there = (read(stream(path), list(range(60))) for path in (f"file://{folder}", str(folder)))
        assert all(torch.equal(x, y) for x, y in zip(fetched, there, strict=True))


def test_a_text_that_is_a_group_as_well_stays_a_text(packed, stream) -> None:
    module = stream(str(packed(columns=COLUMNS | {"group": "words"})))
    assert module.table.inputs["text"][4] == "it is green"


def test_each_shard_is_fetched_once_an_epoch(packed, stream) -> None:
    folder = packed(size=20_000)
    memory = fsspec.filesystem("memory")
    memory.put(str(folder), "/shards", recursive=True)
    module = stream("memory://shards", shuffle_window=2, batch_size=4)
    store = module.table.inputs["text"].store
    module.lengths(["text"])
    assert store.fetched == len(store.shards) > 8
    before = store.fetched
    rows = torch.cat([batch.row for batch in module.train_dataloader()])
    assert sorted(rows.tolist()) == module.rows("train").tolist()
    assert store.fetched - before == len({int(s) for s in module.table.shard[module.rows("train")]})
    memory.rm("/shards", recursive=True)


def test_several(packed, stream, plain, tmp_path: Path) -> None:
    words = write_manifest(tmp_path / "data", rows=30)
    folder = packed("words", path=words, columns={"text": "words", "target": "size"})
    module = stream([str(packed()), {"path": str(folder), "weight": 2.0}], mixing="uniform", shuffle_window=1)
    assert len(module.table.ids) == 90
    assert module.table.name(61) == "words: row 1 (id 'r1')"
    assert module.batch([60, 0]).masks["audio"].any(1).tolist() == [False, True]
    rows = torch.cat([batch.row for batch in module.train_dataloader()])
    assert int((rows >= 60).sum()) == len(rows) * 2 // 3
    assert len(set(module.table.shard[:60]) & set(module.table.shard[60:])) == 0
    alone = stream(str(folder))
    assert module.table.inputs["text"].identity.endswith(alone.table.inputs["text"].identity)


def test_goes_on_in_the_middle_of_an_epoch(packed, stream) -> None:
    path = str(packed(size=20_000))
    begun, again = (stream(path, shuffle_window=2, batch_size=4) for _ in range(2))
    whole = [batch.row.tolist() for batch in begun.train_dataloader()]
    taken = iter(begun.train_dataloader())
    next(taken), next(taken), next(taken)
    again.load_state_dict(begun.state_dict())
    assert [batch.row.tolist() for batch in again.train_dataloader()] == whole[3:]


def test_what_tells_them_from_other_data(packed, stream, tmp_path: Path) -> None:
    one = stream(str(packed())).table.inputs
    same = stream(str(packed("again"))).table.inputs
    assert one["text"].identity == same["text"].identity != one["audio"].identity
    path = write_manifest(tmp_path / "data", words=lambda row, line: line.update(words="x") if row == 9 else None)
    assert stream(str(packed("other", path=path))).table.inputs["text"].identity != one["text"].identity


def test_travels_to_spawned_workers(packed, stream) -> None:
    module = stream(str(packed()))
    module.batch([0])
    again = pickle.loads(pickle.dumps(module.loader("train").dataset))
    assert again.table.inputs["text"][5] == module.table.inputs["text"][5]


def test_a_row_that_is_broken_is_named(packed, stream, monkeypatch: pytest.MonkeyPatch) -> None:
    module = stream(str(packed()))
    column = module.table.inputs["audio"]
    found = type(column).__getitem__
    monkeypatch.setattr(
        type(column),
        "__getitem__",
        lambda self, row: Stored("m/4.wav", lambda: b"no") if self is column and row == 4 else found(self, row),
    )
    with pytest.raises(ValueError, match=r"^shards: row 4 \(id 'r4'\), column 'sound': can't read the sound m/4.wav"):
        list(module.train_dataloader())


@pytest.mark.parametrize("on_error", ["raise", "drop"])
def test_a_shard_that_is_lost_is_no_row_to_drop(packed, stream, on_error: str) -> None:
    """Leaving out its rows would train on less than was asked for."""
    folder = packed()
    module = stream(str(folder), on_error=on_error)
    (folder / "000001.tar").unlink()
    with pytest.raises(ValueError, match=r"no file .*000001.tar; .*copy the folder again.*no row is at fault"):
        list(module.loader("all"))
    memory = fsspec.filesystem("memory")
    memory.put(str(packed("whole")), "/lost", recursive=True)
    module = stream("memory://lost", on_error=on_error)
    memory.rm("/lost/000000.tar")
    with pytest.raises(ValueError, match=r"can't read memory://lost/000000.tar.*no row is at fault"):
        list(module.loader("all"))
    memory.rm("/lost", recursive=True)


def test_folders_that_are_not_whole(packed, stream, tmp_path: Path) -> None:
    folder = packed()
    with pytest.raises(ValueError, match="none: no such folder"):
        stream(str(tmp_path / "none"))
    shutil.copytree(folder, tmp_path / "torn")
    with (tmp_path / "torn/000001.tar").open("ab") as file:
        file.truncate(1000)
    with pytest.raises(StoredError, match=r"000001.tar has 1,000 bytes, wanted [\d,]+; copy it again"):
        stream(str(tmp_path / "torn"))
    (tmp_path / "torn" / INDEX).write_bytes(b"PAR1")
    with pytest.raises(ValueError, match=r"index.parquet: is no index of mm shard, or damaged"):
        stream(str(tmp_path / "torn"))
    (tmp_path / "torn" / INDEX).unlink()
    with pytest.raises(ValueError, match=r"holds no index.parquet, wanted a whole folder as mm shard writes it"):
        stream(str(tmp_path / "torn"))
    with pytest.raises(ValueError, match="memory://none holds no index.parquet"):
        stream("memory://none")
    with pytest.raises(ValueError, match=r"datamodule.path: nothing://a: .*nothing"):
        stream("nothing://a")
    index = pyarrow.parquet.read_table(folder / INDEX)
    about = json.dumps(json.loads(index.schema.metadata[b"mm"]) | {"format": 99})
    pyarrow.parquet.write_table(index.replace_schema_metadata({"mm": about}), folder / INDEX)
    with pytest.raises(ValueError, match="is of format 99, this mm reads 1; run mm shard again"):
        stream(str(folder))


def test_a_missing_package_is_one_message(stream, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(url: str):
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr("fsspec.core.url_to_fs", missing)
    with pytest.raises(ValueError, match=r"datamodule.path: s3://b/x: Install s3fs to access S3"):
        stream("s3://b/x")


def test_places_are_where_the_tar_has_them(packed) -> None:
    folder = packed()
    index = pyarrow.parquet.read_table(folder / INDEX).to_pydict()
    for row in (0, 17, 59):
        with tarfile.open(folder / f"{index['mm.shard'][row]:06d}.tar") as tar:
            for name in ("text.txt", "vision.png", "audio.wav"):
                member = tar.getmember(f"{row:09d}.{name}")
                kind = name.split(".")[0]
                assert (member.offset_data, member.size) == (
                    index[f"mm.offset.{kind}"][row],
                    index[f"mm.size.{kind}"][row],
                )


def test_window() -> None:
    with pytest.raises(ValueError, match="datamodule.shuffle_window: got 0, wanted at least 1 shard"):
        ShardsDataModule("x", "y", batch_size=1, num_workers=0, on_error="raise", split={}, seed=0, shuffle_window=0)


def test_a_store_keeps_few_open(packed) -> None:
    from mm.data.shards.reading import Shard

    folder = packed(size=20_000)
    about = json.loads(pyarrow.parquet.read_schema(folder / INDEX).metadata[b"mm"])
    store = Store(str(folder), [Shard(*one) for one in about["shards"]], folder, 3)
    for shard in range(6):
        assert store.read(shard, 0, 4) == (folder / f"{shard:06d}.tar").read_bytes()[:4]
    assert list(store.open) == [3, 4, 5]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda about: about["shards"][0].__setitem__(0, "../../etc/passwd"), "wanted a file of this folder"),
        (lambda about: about["shards"][0].__setitem__(0, "/etc/passwd"), "wanted a file of this folder"),
        (lambda about: about["shards"][0].__setitem__(0, ["a"]), "wanted a file of this folder"),
        (lambda about: about["shards"][0].__setitem__(1, -5), "got -5 bytes"),
        (lambda about: about["shards"].clear(), "a row is in no shard"),
        (lambda about: about["shards"].append(3), "a list of shards"),
        (lambda about: about["shards"].append([3]), "is damaged"),
        (lambda about: about.update(columns=[1]), "a mapping of columns"),
        (lambda about: about["inputs"]["text"].update(modality=3), r"inputs\.text\.modality: got 3"),
        (lambda about: about["inputs"]["vision"].update(column="none"), "the shards have no column 'none'"),
        (lambda about: about["inputs"].update({"../a": about["inputs"]["text"]}), "got the input"),
        (lambda about: about.update(inputs=7), "a mapping of inputs"),
        (lambda about: about.pop("digest"), "is no index of mm shard, or damaged"),
    ],
)
def test_an_index_of_a_stranger_leads_nowhere(packed, stream, change, message) -> None:
    folder = packed()
    table = pyarrow.parquet.read_table(folder / INDEX)
    about = json.loads(table.schema.metadata[b"mm"])
    change(about)
    metadata = table.schema.metadata | {b"mm": json.dumps(about).encode()}
    pyarrow.parquet.write_table(table.replace_schema_metadata(metadata), folder / INDEX)
    with pytest.raises(ValueError, match=message):
        stream(str(folder))
