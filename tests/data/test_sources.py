"""Several files as one table."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

from mm.data.sources import Source, sources
from mm.datamodules.manifest import ManifestDataModule
from mm.transforms.audio.waveform import AudioTransform
from mm.transforms.text.tokens import TextTransform
from mm.types import IGNORE

NONE = {"val": 0.0, "test": 0.0}
ROLES = ("text", "vision", "audio", "inputs", "target", "targets", "id", "split", "group")
A = "id,words,colour,split\n" + "".join(
    f"r{k},it is {'abc'[k % 3]},{'abc'[k % 3]},{'train' if k % 5 else 'val'}\n" for k in range(30)
)
B = "id,said,wav,tone,split\n" + "".join(f"r{k},it is d,{k % 2}.wav,{'cd'[k % 2]},train\n" for k in range(10))
OWN = {"text": "said", "audio": "wav", "target": "tone"}


@pytest.fixture
def mix(tmp_path: Path, shared: dict):
    """mix(A, B, mixing="uniform") -> a datamodule over a.csv and b.csv, the second with columns of its own"""
    (tmp_path / "a.csv").write_text(A)
    (tmp_path / "b.csv").write_text(B)
    for k in range(2):
        soundfile.write(tmp_path / f"{k}.wav", np.full(800, 0.1, dtype=np.float32), 8000)

    def build(*entries, columns=None, use: bool = True, **changed) -> ManifestDataModule:
        given = entries or ({"path": "a.csv"}, {"path": "b.csv", "columns": OWN})
        path = [entry | {"path": str(tmp_path / entry["path"])} for entry in given]
        chosen = dict.fromkeys(ROLES) | (columns or {"text": "words", "target": "colour"})
        module = ManifestDataModule(path=path, columns=chosen, **shared | {"split": NONE} | changed)
        if use:
            module.use({"text": TextTransform("bytes"), "audio": AudioTransform(8000)})
        return module

    return build


def test_what_a_file_lacks_is_absent(mix) -> None:
    table = mix().table
    assert len(table.ids) == 40
    assert list(table.spec.inputs) == ["text", "audio"]
    assert table.spec.inputs["audio"].sample_rate == 8000
    assert table.inputs["audio"][:30] == [None] * 30
    assert table.spec.targets["target"].classes == ("a", "b", "c", "d")  # of both
    assert table.spec.targets["target"].facts["counts"] == [8, 8, 13, 5]
    assert Counter(table.split) == {"train": 34, "val": 6}
    batch = mix().batch([1, 30])
    assert batch.masks["audio"].any(1).tolist() == [False, True]
    assert batch.targets["target"].tolist() == [1, 2]


def test_a_target_of_one_file_only(mix) -> None:
    module = mix({"path": "a.csv"}, {"path": "b.csv", "columns": {"text": "said", "targets": {"tone": "tone"}}})
    table = module.table
    assert set(table.targets) == {"target", "tone"}
    assert (table.targets["target"][30:] == IGNORE).all()
    assert (table.targets["tone"][:30] == IGNORE).all()
    assert table.spec.targets["tone"].classes == ("c", "d")


def test_an_epoch_is_mixed_and_measuring_is_not(mix) -> None:
    module = mix(mixing="uniform", batch_size=7)
    rows = torch.cat([batch.row for batch in module.train_dataloader()])
    assert len(rows) == 34
    assert int((rows >= 30).sum()) == 17
    assert len(set(rows[rows >= 30].tolist())) == 10
    (batch,) = module.loader("val")
    assert sorted(batch.row.tolist()) == [0, 5, 10, 15, 20, 25]
    everything = [row for batch in module.loader("all", only=["text"]) for row in batch.row.tolist()]
    assert sorted(everything) == list(range(40))
    heavy = mix({"path": "a.csv", "weight": 1}, {"path": "b.csv", "weight": 2.4, "columns": OWN})
    rows = torch.cat([batch.row for batch in heavy.loader("train", train=True)])
    assert int((rows >= 30).sum()) == 17  # 2.4 x 10 to 24


def test_batches_of_one_source(mix) -> None:
    for batch in mix(mixing="uniform", homogeneous_batches=True).loader("train", train=True):
        assert len({int(row) >= 30 for row in batch.row}) == 1


def test_goes_on_in_the_middle_of_a_mixed_epoch(mix) -> None:
    def rows(loader) -> list[list[int]]:
        return [batch.row.tolist() for batch in loader]

    begun, again = mix(mixing="uniform"), mix(mixing="uniform")
    whole = rows(begun.train_dataloader())
    taken = iter(begun.train_dataloader())
    next(taken), next(taken)
    again.load_state_dict(begun.state_dict())
    assert rows(again.train_dataloader()) == whole[2:]


def test_errors_name_the_file(mix, tmp_path: Path) -> None:
    (tmp_path / "b.csv").write_text(B.replace("0.wav", "none.wav", 1))
    with pytest.raises(ValueError, match=r"^b.csv: row 0 \(id 'r0'\), column 'wav': no file"):
        mix()
    module = mix(on_error="drop")
    assert {(row, where) for row, where in module.faults} == {(30, "wav")}
    assert module.table.split[30] == ""
    (tmp_path / "1.wav").write_bytes(b"no sound")
    (tmp_path / "b.csv").write_text(B)
    with pytest.raises(ValueError, match=r"^b.csv: row \d \(id 'r[13579]'\), column 'wav': can't read the sound"):
        list(mix().train_dataloader())
    module = mix(on_error="missing")
    list(module.train_dataloader())
    assert set(module.faults) == {(row, "wav") for row in (31, 33, 35, 37, 39)}
    module.write_errors(tmp_path / "errors.csv")
    assert "31,b.csv:r1,train,wav," in (tmp_path / "errors.csv").read_text()
    (tmp_path / "b.csv").write_text(B.replace("d,train", "q,val", 1))
    with pytest.raises(ValueError, match=r"^b.csv: row 1 \(id 'r1'\), column 'tone': unknown label 'q'"):
        mix()
    with pytest.raises(ValueError, match=r"b.csv: no column 'words'; there are id, said, wav, tone, split"):
        mix({"path": "a.csv"}, {"path": "b.csv"})


def test_files_of_one_name(mix, tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    (tmp_path / "more/a.csv").write_text(A)
    table = mix({"path": "a.csv"}, {"path": "more/a.csv"}).table
    assert table.name(35) == f"{tmp_path / 'more/a.csv'}: row 5 (id 'r5')"
    assert len(set(table.ids)) == 60
    with pytest.raises(ValueError, match=r"a.csv; give it a weight instead"):
        _ = mix({"path": "a.csv"}, {"path": "a.csv"}).table


def test_inputs_of_one_name_and_two_kinds(mix) -> None:
    clash = {"inputs": {"text": {"column": "wav", "modality": "audio"}}}
    with pytest.raises(ValueError, match=r"the input 'text' is text in a.csv, but audio in b.csv; give one another"):
        _ = mix({"path": "a.csv"}, {"path": "b.csv", "columns": clash}, use=False).table


def test_pictures_of_different_sizes(mix, tmp_path: Path) -> None:
    for name, size, mode in (("a", 8, "L"), ("b", 16, "RGB")):
        Image.new(mode, (size, size)).save(tmp_path / f"{name}.png")
        (tmp_path / f"{name}.csv").write_text(f"photo,colour\n{name}.png,x\n{name}.png,y\n")
    columns = {"vision": "photo", "target": "colour"}
    table = mix({"path": "a.csv"}, {"path": "b.csv"}, columns=columns, use=False).table
    data = table.spec.inputs["vision"]
    assert (data.size, data.channels) == ((224, 224), 3)
    assert table.ids == ["a.csv:0", "a.csv:1", "b.csv:0", "b.csv:1"]


def test_a_path_may_be_a_path_object():
    assert sources(Path("a.csv")) == sources("a.csv")
    assert sources([{"path": Path("a.csv"), "weight": 2.0}]) == sources([{"path": "a.csv", "weight": 2.0}])


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ([], "got an empty list"),
        ([3], r"got 3, wanted a path, or \{path"),
        ([{"weight": 2}], r".*wanted a path, or \{path"),
        ([{"path": "a", "weight": 0}], "got weight 0 for a, wanted a number above 0"),
        ([{"path": "a", "wieght": 2}], "'wieght' of .*: nothing reads it.*did you mean 'weight'"),
        ([{"path": "a", "weight": True}], r".*wanted a path, or \{path"),
    ],
)
def test_wrong_entries(path, message: str) -> None:
    with pytest.raises(ValueError, match=f"^datamodule.path: {message}"):
        sources(path)


def test_entries() -> None:
    assert sources("a.csv") == [Source("a.csv", None, 1.0)]
    assert sources(["a", {"path": "b", "weight": 2, "columns": {}}], "columns") == [Source("a"), Source("b", {}, 2.0)]


def test_wrong_columns_of_an_entry(mix) -> None:
    with pytest.raises(ValueError, match=r"columns.texts of .*b.csv: nothing reads it.*did you mean 'text'"):
        _ = mix({"path": "a.csv"}, {"path": "b.csv", "columns": {"texts": "said"}}, use=False).table


def test_a_file_that_would_never_be_drawn(mix) -> None:
    module = mix({"path": "a.csv"}, {"path": "b.csv", "columns": OWN, "weight": 1e-4})
    with pytest.raises(ValueError, match=r"b.csv would make up none of the 34 rows of an epoch; raise its weight"):
        module.train_dataloader()


def test_a_file_may_be_of_one_split(mix, tmp_path: Path) -> None:
    for name in "cd":
        (tmp_path / f"{name}.csv").write_text("words,colour\n" + f"{name},a\n" * 3)
    table = mix({"path": "c.csv", "split": "test"}, {"path": "d.csv", "split": "train"}).table
    assert table.split.tolist() == ["test"] * 3 + ["train"] * 3
    with pytest.raises(ValueError, match=r"got split 'dev' for .*c.csv, wanted train, val, test"):
        mix({"path": "c.csv", "split": "dev"}, use=False)
    with pytest.raises(ValueError, match=r"a.csv has a column 'split' already; leave out its split"):
        mix({"path": "a.csv", "split": "val"})


def test_validation_rows_are_drawn_only_where_no_file_names_any(mix, tmp_path: Path) -> None:
    for name in "cde":
        (tmp_path / f"{name}.csv").write_text(
            "id,words,colour\n" + "".join(f"{k},w{k},{'xy'[k % 2]}\n" for k in range(20))
        )
    part = {"val": 0.2, "test": 0.0, "seed": 0}
    train, test, val = ({"path": f"{n}.csv", "split": split} for n, split in zip("cde", ("train", "test", "val")))
    assert Counter(mix(train, test, val, split=part).table.split) == {"train": 20, "test": 20, "val": 20}
    assert Counter(mix(val, train, split=part).table.split) == {"train": 20, "val": 20}
    assert Counter(mix(train, test, split=part).table.split) == {"train": 16, "test": 20, "val": 4}
    (tmp_path / "f.csv").write_text((tmp_path / "c.csv").read_text())  # which names no split
    assert Counter(mix(train, {"path": "f.csv"}, split=part).table.split) == {"train": 32, "val": 8}
