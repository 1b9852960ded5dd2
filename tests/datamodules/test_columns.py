import re
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import soundfile
import torch
from PIL import Image

from mm.datamodules.base import DataModule
from mm.datamodules.manifest import ManifestDataModule
from mm.transforms.target.classes import Classes
from mm.transforms.target.labels import Labels
from mm.transforms.text.tokens import Tokens
from mm.types import TargetData

NONE = {"val": 0.0, "test": 0.0}
Make = Callable[..., DataModule]


def known(*classes: str) -> dict[str, TargetData]:
    """As a trained model knows them."""
    return {"target": TargetData(kind="class", classes=classes)}


ROWS = "text,target,split\n" + "".join(f"w{k},{'ab'[k % 2]},{('train', 'val', 'test')[k % 3]}\n" for k in range(12))


def test_two_texts(make: Make) -> None:
    text = "s1,s2,y,split\na,bb,1,train\nc,,0,train\n"
    full = {"premise": {"column": "s1", "modality": "text"}, "hypothesis": {"column": "s2", "modality": "text"}}
    module = make("a.csv", text, in_full=full, target="y", split=NONE)
    (batch,) = module.loader("train")
    assert list(batch.inputs) == ["premise", "hypothesis"]
    assert batch.inputs["hypothesis"].tolist() == [[99, 99], [0, 0]]
    assert batch.masks["hypothesis"].any(1).tolist() == [True, False]


@pytest.mark.parametrize("full", ["s1", {"column": "s1"}, {"column": "s1", "modality": "words"}, {"modality": "text"}])
def test_inputs_in_full_that_are_not(make: Make, full: object) -> None:
    with pytest.raises(
        ValueError, match=r"datamodule.columns.inputs.premise: got .*, wanted \{column: ..., modality: text"
    ):
        make("a.csv", ROWS, in_full={"premise": full})


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"text": "txt"}, "no column 'txt'; there are text, target, split; did you mean 'text'"),
        ({"text": "Text"}, "did you mean 'text'"),
        (
            {"text": "zzz"},
            r"no column 'zzz'.*if the first line is a row already, name the columns with datamodule.header",
        ),
        ({"target": "q", "text": "text"}, "no column 'q'"),
        ({"text": "text", "split_column": "part"}, "no column 'part'"),
        ({"text": "text", "id": "key"}, "no column 'key'"),
        ({"text": "text", "targets": {"y": 1.5}}, r"columns.targets.y: got 1.5, wanted the name of a column"),
    ],
)
def test_wrong_columns(make: Make, chosen: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make("a.csv", ROWS, **chosen)
    with pytest.raises(ValueError, match="no input column is named; set datamodule.columns.text, .vision, .audio or"):
        make("a.csv", "words,target\na,b\n")


@pytest.mark.parametrize(("name", "mark"), [("a.csv", ";"), ("a.csv", "\t"), ("a.tsv", ",")])
def test_another_delimiter_is_guessed_at(make: Make, name: str, mark: str) -> None:
    with pytest.raises(ValueError, match=rf"is {re.escape(repr(mark))} the delimiter\? .csv files have commas, .tsv"):
        make(name, f"text{mark}target\na{mark}b\n", text="text")


def test_a_model_s_target_need_not_be_there_to_predict(make: Make) -> None:
    with pytest.raises(ValueError, match="no column 'z'; there are x, y; mm predict needs none$"):
        make("a.csv", "x,y\na,b\n", text="x", target="z", whole=True, known={"target": None})


@pytest.mark.parametrize("name", ["text", "vision", "tabular"])
def test_an_input_that_nothing_is_of_is_refused(make: Make, name: str) -> None:
    with pytest.raises(ValueError, match=rf"no row has anything in column 'x'; leave out datamodule.columns.{name}"):
        make("a.csv", "x,y,split\n,a,train\n,b,train\n", in_full={name: {"column": "x", "modality": name}}, target="y")


def test_columns_may_be_numbered(make: Make) -> None:
    module = make("a.csv", "0,1,split\nx,a,train\n", text=0, target=1, split=NONE)
    assert module.table.inputs["text"] == ["x"]
    assert module.table.spec.targets["target"].classes == ("a",)


def test_header(make: Make) -> None:
    module = make("a.tsv", "x\ta\ny\tb\n" * 10, text="words", target="y", header=["words", "y"])
    assert module.table.inputs["text"] == ["x", "y"] * 10


def test_parquet(make: Make, tmp_path: Path) -> None:
    """Integers with gaps stay '3', lists are labels, None and NaN are empty."""
    table = pyarrow.table(
        {
            "text": ["a", None, "c", "d"],
            "grade": pyarrow.array([3, None, 10, 9], pyarrow.int64()),
            "floats": [3.0, float("nan"), 10.0, 9.0],
            "tags": [["x", "y"], [], None, ["x"]],
            "split": ["train"] * 4,
        }
    )
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    targets = {"grade": "grade", "floats": "floats", "tags": "tags"}
    module = make("a.parquet", text="text", targets=targets, readers={"tags": Labels()})
    spec = module.table.spec.targets
    assert spec["grade"].classes == spec["floats"].classes == ("3", "9", "10")
    assert module.table.targets["tags"].tolist() == [[1, 1], [0, 0], [-100, -100], [1, 0]]
    (batch,) = module.loader("train")
    assert batch.masks["text"].any(1).tolist() == [True, False, True, True]


@pytest.mark.parametrize("policy", ["raise", "drop", "missing"])
def test_wrong_ids_and_splits(make: Make, policy: str) -> None:
    text = "id,text,target,split\ni0,a,x,train\n,b,x,train\ni0,c,x,train\ni3,d,x,trian\ni4,e,x,\n,f,x,\n"
    if policy == "raise":
        with pytest.raises(
            ValueError, match=r"row 1 \(id ''\), column 'id': the id is empty.*\(2 more rows are wrong\)"
        ):
            make("a.csv", text, text="text", on_error=policy)
        return
    module = make("a.csv", text, text="text", on_error=policy, split=NONE)
    assert module.table.split.tolist() == ["train", "", "", "", "", ""]
    assert {k: v.split(";")[0] for k, v in module.faults.items()} == {
        (1, "id"): "the id is empty",
        (2, "id"): "the id 'i0' is also that of row 0",
        (3, "split"): "split 'trian', wanted train, val, test or nothing",
    }
    assert module.table.spec.targets["target"].facts["counts"] == [1]


def test_a_column_that_only_looks_like_an_id_a_split_or_a_group(make: Make) -> None:
    lines = [f"{k // 3},{'AB'[k % 2]},{k % 5},w{k},{'xy'[k % 2]}\n" for k in range(60)]
    text = "id,group,split,text,target\n" + "".join(lines)
    with pytest.raises(ValueError, match=r"the id '0' is also that of row 0; .* set datamodule.columns.id=false"):
        make("a.csv", text, text="text", split_column=False, group=False)
    with pytest.raises(ValueError, match=r"split '0', wanted train, .*; if .* set datamodule.columns.split=false"):
        make("a.csv", text, text="text", id=False)
    alike = "group,text,target\n" + "x,a,same\n" * 20
    with pytest.raises(ValueError, match="of one group; give a split column, or set datamodule.columns.group=false"):
        make("a.csv", alike, text="text", target="target")
    for none in (False, ""):
        module = make("a.csv", text, text="text", target="target", id=none, group=none, split_column=none)
        assert module.table.ids[:3] == ["0", "1", "2"]
        assert (module.table.split == "val").sum() == 12
    with pytest.raises(ValueError) as caught:  # which the user has named
        make("a.csv", text, text="text", id="id", split_column=False, group=False)
    assert "is also that of row 0" in str(caught.value) and "=false" not in str(caught.value)


def test_dropped_rows_bring_no_class(make: Make) -> None:
    text = "vision,target,split\nnone.png,rare,train\n,b,train\n"
    folder = {"on_error": "drop", "vision": "vision", "split": NONE}
    with pytest.raises(ValueError, match=r"none of the files that its vision names is there; paths are relative to /"):
        make("a.csv", text, **folder)


def test_validation_is_made_of_training_rows(make: Make) -> None:
    text = "text,target,split\n" + "".join(f"w{k},{'ab'[k % 2]},{'test' if k < 10 else 'train'}\n" for k in range(50))
    split = make("a.csv", text, text="text", target="target").table.split
    assert (split[:10] == "test").all()
    assert Counter(split[10:].tolist()) == {"train": 32, "val": 8}


@pytest.mark.parametrize("readers", [{}, {"target": Classes()}])
def test_made_splits_are_stratified_and_grouped(make: Make, readers: dict) -> None:
    text = "text,target,group\n" + "".join(f"w{k},{'a' if k % 5 else 'b'},g{k // 4}\n" for k in range(100))
    plain = make("a.csv", text.replace(",group", ",other"), text="text", target="target", readers=readers).table
    for name, count in (("train", 60), ("val", 20), ("test", 20)):
        rows = plain.split == name
        assert rows.sum() == count
        assert int((plain.targets["target"][rows] == 1).sum()) == count // 5
    grouped = make("a.csv", text, text="text", target="target").table.split
    assert all(len(set(grouped[k : k + 4])) == 1 for k in range(0, 100, 4))
    with pytest.raises(ValueError, match="rows to split are all of one group"):
        make("a.csv", "text,target,group\n" + "x,a,same\n" * 20, text="text")


def test_media_looked_at(make: Make, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    for k in range(4):
        Image.new("L", (20, 10)).save(tmp_path / f"{k}.jpg", exif=exif)
        soundfile.write(tmp_path / f"{k}.wav", np.zeros(9) + 0.1, 44_100 if k == 1 else 22_050)
    (tmp_path / "2.jpg").write_bytes(b"broken")
    (tmp_path / "2.wav").write_bytes(b"broken")
    text = "p,s,split\n" + "".join(f"{k}.jpg,{k}.wav,train\n" for k in range(4))
    spec = make("a.csv", text, vision="p", audio="s", use=False).table.spec
    assert spec.inputs["vision"].size == (20, 10)  # as it is seen
    assert spec.inputs["vision"].channels == 1
    assert spec.inputs["audio"].sample_rate == 22_050
    Image.new("RGB", (30, 10)).save(tmp_path / "3.jpg")
    spec = make("b.csv", text, vision="p", use=False).table.spec
    assert (spec.inputs["vision"].size, spec.inputs["vision"].channels) == ((224, 224), 3)


def test_cells_that_are_no_paths(make: Make, tmp_path: Path) -> None:
    pyarrow.parquet.write_table(
        pyarrow.table({"photo": [{"bytes": b"png" * 999}], "split": ["train"]}), tmp_path / "a.parquet"
    )
    with pytest.raises(ValueError, match="column 'photo': got dict, wanted the path of a file as text") as caught:
        make("a.parquet", vision="photo", split=NONE)
    assert len(str(caught.value)) < 300


class TestWhole:
    """Rows for a trained model: all are tested, its labels count, what it does not predict is not read."""

    def test_one_row_without_its_media(self, make: Make) -> None:
        text = "text,photo,sound,target\nhello,,,zzz\n"
        module = make("a.csv", text, text="text", vision="photo", audio="sound", whole=True)
        assert module.table.split.tolist() == ["test"]
        assert not module.table.targets  # nothing was said of labels: predicting
        (batch,) = module.test_dataloader()
        assert [bool(batch.masks[n].any()) for n in ("text", "vision", "audio")] == [True, False, False]

    def test_labels(self, make: Make) -> None:
        module = make("a.csv", ROWS, text="text", target="target", whole=True, known=known("b", "a", "c"))
        assert module.table.targets["target"][:2].tolist() == [1, 0]
        assert (module.table.split == "test").sum() == 4  # it has a column of splits
        with pytest.raises(ValueError, match="row 0 .*unknown label 'a'; the model knows b, c"):
            make("a.csv", ROWS, text="text", target="target", whole=True, known=known("b", "c"))

    def test_a_flat_folder(self, make: Make, tmp_path: Path) -> None:
        (tmp_path / "notes").mkdir()
        (tmp_path / "notes/1.txt").write_text("one")
        module = make("notes", kind=partial(ManifestDataModule, folder="text"), whole=True)
        assert module.table.ids == ["1.txt"]
        with pytest.raises(ValueError, match="lies in no class folder"):
            make("notes", kind=partial(ManifestDataModule, folder="text", readers={"target": Classes()}))


def test_folders_of_each_modality(make: Make, tmp_path: Path) -> None:
    for k in range(20):
        for kind in ("t", "v", "a"):
            (tmp_path / kind / "ab"[k % 2]).mkdir(parents=True, exist_ok=True)
        (tmp_path / "t" / "ab"[k % 2] / f"{k}.txt").write_text(f"text {k}")
        Image.new("RGB", (6, 4), (k, 0, 0)).save(tmp_path / "v" / "ab"[k % 2] / f"{k}.png")
        soundfile.write(tmp_path / "a" / "ab"[k % 2] / f"{k}.wav", np.full(90, 0.1), 8000)
    for name, kind, modality in (
        ("t", partial(ManifestDataModule, folder="text"), "text"),
        ("v", partial(ManifestDataModule, folder="vision"), "vision"),
        ("a", partial(ManifestDataModule, folder="audio"), "audio"),
    ):
        module = make(name, kind=kind)
        assert list(module.table.spec.inputs) == [modality]
        assert module.table.spec.targets["target"].classes == ("a", "b")
        batches = [*module.train_dataloader(), *module.val_dataloader(), *module.test_dataloader()]
        assert sorted(torch.cat([b.row for b in batches]).tolist()) == list(range(20))
        for batch in batches:
            assert batch.masks[modality].any(1).all()
            assert all(
                module.table.ids[r][0] == "ab"[t] for r, t in zip(batch.row, batch.targets["target"], strict=True)
            )


def test_inputs_left_out(make: Make) -> None:
    module = make(
        "a.csv", ROWS.replace("text,", "text,").replace("target", "words"), text="text", target="words", use=False
    )
    assert list(module.table.spec.inputs) == ["text"]
    module.use({"text": Tokens("bytes")})
    assert len(module.rows("train")) == 4
