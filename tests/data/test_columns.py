import re
import unicodedata
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import soundfile
import torch
from PIL import Image

from mm.data.module import DataModule
from mm.datamodules.manifest import ManifestDataModule
from mm.targets.boxes import BoxTarget
from mm.targets.classes import ClassTarget
from mm.targets.multilabel import MultilabelTarget
from mm.targets.tags import TagTarget
from mm.targets.transcript import TranscriptTarget
from mm.text_column import TextColumn
from mm.transforms.text.tokens import TextTransform
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
            r"no column 'zzz'.*if the first line is a row already, name the columns with datamodule.column_names",
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
        make("a.csv", "x,y\na,b\n", text="x", target="z", draw_split=False, known={"target": None})


@pytest.mark.parametrize("name", ["text", "vision", "tabular"])
def test_an_input_that_nothing_is_of_is_refused(make: Make, name: str) -> None:
    with pytest.raises(ValueError, match=rf"no row has anything in column 'x'; leave out datamodule.columns.{name}"):
        make("a.csv", "x,y,split\n,a,train\n,b,train\n", in_full={name: {"column": "x", "modality": name}}, target="y")


def test_columns_may_be_numbered(make: Make) -> None:
    module = make("a.csv", "0,1,split\nx,a,train\n", text=0, target=1, split=NONE)
    assert module.table.inputs["text"] == ["x"]
    assert module.table.spec.targets["target"].classes == ("a",)


def test_header(make: Make) -> None:
    module = make("a.tsv", "x\ta\ny\tb\n" * 10, text="words", target="y", column_names=["words", "y"])
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
    module = make("a.parquet", text="text", targets=targets, readers={"tags": MultilabelTarget()})
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
    with pytest.raises(
        ValueError, match=r"none of the files that its vision column names exists; paths are relative to /"
    ):
        make("a.csv", text, **folder)


def test_validation_is_made_of_training_rows(make: Make) -> None:
    text = "text,target,split\n" + "".join(f"w{k},{'ab'[k % 2]},{'test' if k < 10 else 'train'}\n" for k in range(50))
    split = make("a.csv", text, text="text", target="target").table.split
    assert (split[:10] == "test").all()
    assert Counter(split[10:].tolist()) == {"train": 32, "val": 8}


@pytest.mark.parametrize("readers", [{}, {"target": ClassTarget()}])
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
        module = make("a.csv", text, text="text", vision="photo", audio="sound", draw_split=False)
        assert module.table.split.tolist() == ["test"]
        assert not module.table.targets  # nothing was said of labels: predicting
        (batch,) = module.test_dataloader()
        assert [bool(batch.masks[n].any()) for n in ("text", "vision", "audio")] == [True, False, False]

    def test_labels(self, make: Make) -> None:
        module = make("a.csv", ROWS, text="text", target="target", draw_split=False, known=known("b", "a", "c"))
        assert module.table.targets["target"][:2].tolist() == [1, 0]
        assert (module.table.split == "test").sum() == 4  # it has a column of splits
        with pytest.raises(ValueError, match="row 0 .*unknown label 'a'; the model knows b, c"):
            make("a.csv", ROWS, text="text", target="target", draw_split=False, known=known("b", "c"))

    def test_a_flat_folder(self, make: Make, tmp_path: Path) -> None:
        (tmp_path / "notes").mkdir()
        (tmp_path / "notes/1.txt").write_text("one")
        module = make("notes", kind=partial(ManifestDataModule, folder="text"), draw_split=False)
        assert module.table.ids == ["1.txt"]
        with pytest.raises(ValueError, match="lies in no class folder"):
            make("notes", kind=partial(ManifestDataModule, folder="text", readers={"target": ClassTarget()}))


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
    module.use({"text": TextTransform("bytes")})
    assert len(module.rows("train")) == 4


CAFE = ("caf\u00e9", "cafe\u0301")  # composed, decomposed


def test_one_class_over_several_files(make: Make, tmp_path: Path, printed_log: pytest.CaptureFixture[str]) -> None:
    """Whatever way the files spell it; probable duplicates are named once, with their rows."""
    for name, labels in (("b.csv", ["0.0", "1.0"]), ("c.csv", ["1e0", "0"])):
        (tmp_path / name).write_text("text,y\n" + "".join(f"w,{labels[k % 2]}\n" for k in range(20)))
    paths = [str(tmp_path / name) for name in ("a.csv", "b.csv", "c.csv")]
    text = "text,y\n" + "".join(f"w,{k % 2}\n" for k in range(20))
    module = make(
        "a.csv", text, kind=lambda path, **shared: ManifestDataModule(paths, **shared), text="text", target="y"
    )
    assert module.table.spec.targets["target"].classes == ("0", "1")
    assert [module.truth("target", row) for row in (0, 1, 20, 21, 40, 41)] == ["0", "1", "0", "1", "1", "0"]
    assert "classes" not in printed_log.readouterr().out
    rows = "text,y,split\n" + "".join(f"w,{('red', 'RED', 'blue')[k % 3]},train\n" for k in range(9))
    table = make("d.csv", rows, text="text", target="y", split=NONE).table
    said = [line for line in printed_log.readouterr().out.splitlines() if "classes" in line]
    wanted = "d.csv: column 'y': 'RED' (3 rows), 'red' (3 rows) are 2 classes; if they mean one, spell them alike"
    assert said == [wanted]
    learnt = {"target": table.spec.targets["target"]}
    assert make("d.csv", rows, text="text", target="y", known=learnt, trained=True).table.targets["target"].shape == (
        9,
    )
    assert "classes" not in printed_log.readouterr().out  # of a trained model they are what they are


@pytest.mark.parametrize(
    ("reader", "cell"),
    [
        (MultilabelTarget(), "{name}|{name}"),
        (TagTarget("text"), "B-{name}"),
        (BoxTarget("vision"), '[{{"label": "{name}", "box": [0, 0, 4, 4]}}]'),
        (TranscriptTarget("audio"), "{name}"),
    ],
)
def test_composed_and_decomposed_names(reader, cell: str) -> None:
    """Of every kind of target with classes; a model that knows the decomposed spelling alone takes both, too."""
    cells = [cell.format(name=name) for name in (*CAFE, "tea")]
    values, data, faults, _ = reader.fit(cells, np.ones(3, dtype=bool), None)
    assert not faults
    assert torch.equal(values[0], values[1])
    assert not any(unicodedata.normalize("NFC", name) != name for name in data.classes)
    old = replace(data, classes=tuple(unicodedata.normalize("NFD", name) for name in data.classes))
    if reader.kind != "spelling":  # its classes are single letters
        again = reader.fit(cells, np.ones(3, dtype=bool), old)
        assert not again.faults
        assert all(torch.equal(a, b) for a, b in zip(again.values, values))


def test_a_model_of_decomposed_letters() -> None:
    letters = tuple(sorted({*CAFE[1], *"tea"}))
    known = TargetData(kind="spelling", classes=letters)
    values, _, faults, _ = TranscriptTarget("audio").fit([*CAFE, "é"], np.ones(3, dtype=bool), known)
    assert not faults
    assert values[0].tolist() == values[1].tolist() == [letters.index(letter) for letter in CAFE[1]]


def test_ids_groups_and_splits_are_composed(make: Make) -> None:
    rows = [f"w{k},{CAFE[k % 2]}{k},{('1', '1.0', CAFE[0], CAFE[1])[k % 4]}\n" for k in range(40)]
    table = make("a.csv", "text,id,who\n" + "".join(rows), text="text", group="who", id="id").table
    assert table.ids[:2] == ["caf\u00e90", "caf\u00e91"]
    assert {len({table.split[k] for k in range(40) if k % 4 in own}) for own in ((0,), (1,), (2, 3))} == {1}
    same = f"text,id\na,{CAFE[0]}\nb,{CAFE[1]}\n"
    with pytest.raises(ValueError, match="row 1 .*column 'id': the id 'caf\u00e9' is also that of row 0"):
        make("b.csv", same, text="text", id="id", split=NONE)


def test_wrong_bytes_are_named_at_the_start(make: Make) -> None:
    """With the row, the byte and the fix, of inputs, targets and ids; not when the row is drawn, hours later."""
    rows = "text,y,id\nun,a,1\ncaf\udce9,b,2\ndeux,a,3\nth\udce9,b,4\n"
    message = r"a.csv: row 1 \(id '2'\), column 'text': not valid UTF-8: byte 4 of the cell is 0xe9, after 'caf'; save "
    message += r"the file as UTF-8, for example iconv -f latin1 -t utf-8 OLD > NEW \(1 more rows are wrong\)"
    with pytest.raises(ValueError, match=message):
        make("a.csv", rows, text="text", target="y", split=NONE, use=False).table  # noqa: B018
    for on_error, split in (("drop", ["train", "", "train", ""]), ("missing", ["train"] * 4)):
        module = make("a.csv", rows, text="text", target="y", split=NONE, on_error=on_error)
        assert module.table.split.tolist() == split
        assert list(module.faults) == [(1, "text"), (3, "text")]
        assert (module.table.inputs["text"][1] is None) == (on_error == "missing") or on_error == "drop"
    cells = "text,y\nun,b\ndeux,caf\udce9\ntrois,a\n"
    with pytest.raises(ValueError, match="row 1 .*column 'y': not valid UTF-8: byte 4 of the cell is 0xe9"):
        make("b.csv", cells, text="text", target="y", split=NONE, use=False).table  # noqa: B018
    with pytest.raises(ValueError, match=r"row 1 \(id '.udce9'\), column 'y': the id can't be read: not valid UTF-8"):
        make("c.csv", "text,y\nun,b\ndeux,\udce9\n", text="text", id="y", split=NONE, use=False).table  # noqa: B018
    with pytest.raises(ValueError, match="row 1 .*column 'a.b': not valid UTF-8|row 1 .*not valid UTF-8: byte 1"):
        full = {"pair": {"column": ["a", "b"], "modality": "text"}}
        make("d.csv", "a,b\nx,y\nz,\udce9\n", in_full=full, split=NONE, use=False).table  # noqa: B018


def test_half_surrogates_numbers_and_nul_in_texts_are_named_at_the_start(make: Make) -> None:
    for cell, message in (
        ('"ha \\ud83d"', r"holds .ud83d, one half of a surrogate pair"),
        ('"a\\u0000b"', "byte 2 of the cell is NUL"),
        ("7", "got int, wanted a text"),
    ):
        with pytest.raises(ValueError, match=f"a.jsonl: row 1 .*column 'text': .*{message}"):
            make("a.jsonl", f'{{"text": "x"}}\n{{"text": {cell}}}\n', text="text", split=NONE, use=False).table  # noqa: B018
    with pytest.raises(ValueError, match="a.csv: row 1 .*column 'text': byte 2 of the cell is NUL"):
        make("a.csv", "text\nx\na\0b\n" + "long enough\n" * 9, text="text", split=NONE, use=False).table  # noqa: B018


def test_texts_of_a_folder(tmp_path: Path, shared) -> None:
    for name, data in (
        ("a/1.txt", b"\xef\xbb\xbfone"),
        ("a/2.txt", b"two"),
        ("b/3.txt", b"caf\xe9"),
        ("b/4.txt", b"x"),
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    columns = dict.fromkeys(("text", "vision", "audio", "target", "targets", "id", "split", "group", "inputs"))
    module = ManifestDataModule(str(tmp_path), columns | {"text": "text"}, folder="text", **shared)
    with pytest.raises(ValueError, match=r"row 2 \(id 'b/3.txt'\), column 'text': not valid UTF-8: byte 4"):
        module.table  # noqa: B018
    dropped = ManifestDataModule(
        str(tmp_path), columns | {"text": "text"}, folder="text", **shared | {"on_error": "drop", "split": NONE}
    )
    assert dropped.table.inputs["text"][0] == "one"  # without the byte order mark
    assert dropped.table.split.tolist() == ["train", "train", "", "train"]


def test_columns_of_a_large_file_stay_in_the_memory_of_arrow(make: Make) -> None:
    rows = "text,y\n" + "".join(f"w{k},{'ab'[k % 2]}\n" for k in range(200))
    module = make("a.csv", rows, text="text", target="y")
    assert isinstance(module.table.inputs["text"], TextColumn)
    assert module.table.ids[:2] == ["0", "1"]
    assert module.table.ids[-1] == "199"
    assert len(module.table.ids) == 200


def test_paths_may_be_relative_to_another_folder(make, tmp_path):
    (tmp_path / "photos").mkdir()
    Image.new("L", (4, 4)).save(tmp_path / "photos/a.png")
    rows = "vision,target\n" + "a.png,x\n" * 10
    assert make("a.csv", rows, media_root=str(tmp_path / "photos")).spec.inputs["vision"].size == (4, 4)
    with pytest.raises(ValueError, match=rf"vision column names exists; paths are relative to {tmp_path}/other"):
        make("a.csv", rows, media_root=str(tmp_path / "other"), on_error="missing")
