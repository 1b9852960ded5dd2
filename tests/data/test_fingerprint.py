"""Fingerprints of splits: equal for equal data, and each change is found and named."""

import re
import shutil
from pathlib import Path

import numpy as np
import pyarrow
import pytest
import torch
from conftest import write_manifest

from mm.data.fingerprint import column, differences, fingerprint, from_tensors, seen_in_training
from mm.data.module import DataModule
from mm.datamodules.digits import DigitsDataModule
from mm.datamodules.shards import ShardsDataModule, write_shards
from mm.fingerprints import cell_bytes

HEAD = "id,words,label,split\n"
ROWS = [f"r{i},text {i},{'ab'[i % 2]},{('train', 'train', 'val', 'test')[i % 4]}\n" for i in range(40)]
ROLES = {"text": "words", "target": "label", "id": "id", "split_column": "split"}


@pytest.fixture
def taken(make):
    def take(rows, name="rows.csv"):
        data = make(name, HEAD + "".join(rows), **ROLES)
        return data.fingerprint, data

    return take


def test_the_same_rows_have_the_same_fingerprint_wherever_they_lie(taken, tmp_path):
    (tmp_path / "moved").mkdir()
    first, second = taken(ROWS)[0], taken(ROWS, "moved/other.csv")[0]
    assert first.digests() == second.digests()
    again = from_tensors(first.tensors())
    assert again.digests() == first.digests()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda rows: [*rows[:4], rows[4].replace("text", "other"), *rows[5:]], "train: 1 of its rows are gone"),
        (lambda rows: [*rows[:4], rows[4].replace(",a,", ",b,"), *rows[5:]], r"the first is .*row 4 \(id 'r4'\)"),
        (lambda rows: [*rows[:4], rows[4].replace("r4,", "x4,"), *rows[5:]], "row 4 .id 'x4'"),
        (lambda rows: [*rows, "r99,new,a,train\n"], "train had 20 rows, now it has 21: 1 are new"),
        (lambda rows: rows[1:], "train had 20 rows, now it has 19"),
        (lambda rows: [rows[1], rows[0], *rows[2:]], "train: its rows are in another order"),
        (lambda rows: [rows[0].replace(",train", ",val"), *rows[1:]], "train had 20 .*val had 10 rows, now it has 11"),
    ],
)  # fmt: skip
def test_every_change_is_found_and_named(taken, change, words):
    before, _ = taken(ROWS)
    now, data = taken(change(ROWS), "changed.csv")
    assert re.search(words, differences(before, now, data)), differences(before, now, data)
    assert before.digests() != now.digests()
    assert differences(before, before, data) == ""


def test_a_checkpoint_of_other_rows_is_refused(make):
    begun = make("rows.csv", HEAD + "".join(ROWS), **ROLES)
    begun.load_state_dict(begun.state_dict())
    begun.load_state_dict({})  # of an older mm
    grown = make("grown.csv", HEAD + "".join([*ROWS, "r99,new,a,train\n"]), **ROLES)
    with pytest.raises(ValueError, match=r"the rows of train \(20 then, 21 now\) are others than those that"):
        grown.load_state_dict(begun.state_dict())


def test_rows_that_were_trained_on_are_known_again_in_another_place(taken):
    before, _ = taken(ROWS)
    swapped = {"train": "val", "val": "train", "test": "test"}
    cells = [row.strip().split(",") for row in ROWS]
    moved = [f"q{i},{text},{label},{swapped[split]}\n" for i, (_, text, label, split) in enumerate(reversed(cells))]
    moved[0] = moved[0].replace(",test", ",train")  # both classes train
    now, _ = taken(moved, "moved.csv")
    assert seen_in_training(before, now, "val").all()
    assert not seen_in_training(before, now, "test").any()
    assert not seen_in_training(before, before, "val").any()


def test_a_new_class_changes_no_other_row(taken):
    before, _ = taken(ROWS)
    now, _ = taken([*ROWS, "r99,new,A,train\n"], "grown.csv")
    assert torch.isin(before.rows["train"], now.rows["train"]).all()


def test_arrays_count_by_what_they_hold():
    settings = {"batch_size": 8, "num_workers": 0, "on_error": "raise", "split": {}, "seed": 0}
    one, two = (DigitsDataModule(0.3, -12.2, 0.1, 0.2, 0, **settings).table for _ in range(2))
    assert fingerprint(one).digests() == fingerprint(two).digests()
    row = int(np.flatnonzero(two.split == "train")[0])
    images = [np.array(x) for x in two.inputs["vision"]]
    images[row].flat[0] += 1
    two.inputs["vision"] = images
    assert fingerprint(one).digests()["train"] != fingerprint(two).digests()["train"]
    assert fingerprint(one).digests()["val"] == fingerprint(two).digests()["val"]


MIXED = {"text": "words", "vision": "photo", "audio": "sound", "target": "colour"}


def drop_split(row, line):
    del line["split"]


@pytest.fixture
def mixed(make, tmp_path):
    """mixed("here") -> a datamodule over a table of texts, pictures and sounds in that folder"""

    def build(folder: str, **changed):
        if not (tmp_path / folder).exists():
            own = {"words": lambda row, line: line.update(words=f"text {row}"), "split": drop_split}
            write_manifest(tmp_path / folder, rows=20, **own)
        return make(f"{folder}/rows.csv", **MIXED | changed)

    return build


def test_a_folder_of_media_may_be_copied_and_a_file_of_another_size_is_another(mixed, tmp_path, monkeypatch):
    before = fingerprint(mixed("here").table)
    shutil.copytree(tmp_path / "here", tmp_path / "there")
    module = mixed("there")
    assert fingerprint(module.table).digests() == before.digests()
    monkeypatch.chdir(tmp_path / "there")  # paths are relative now

    def again() -> DataModule:
        return type(module)(path="rows.csv", columns=module.columns, batch_size=8, num_workers=0, on_error="raise",
                            split={"val": 0.2, "test": 0.2, "seed": 0}, seed=0)  # fmt: skip

    assert again().fingerprint.digests() == before.digests()
    row = int(np.flatnonzero(module.table.split == "train")[3])
    file = Path(module.table.inputs["audio"][row])
    file.write_bytes(file.read_bytes() + b"\0")
    told = differences(before, again().fingerprint, again())
    assert told.startswith("train: 1 of its rows") and f"row {row} (" in told and "val" not in told


def test_rows_in_shards_are_those_of_their_file(mixed, tmp_path):
    module = mixed("here")
    whole = mixed("here", draw_split=False)
    write_shards(whole, tmp_path / "shards", 120_000, 0)
    shards = ShardsDataModule(
        path=str(tmp_path / "shards"), cache=str(tmp_path / "cache"), batch_size=8, num_workers=0, on_error="raise",
        split={"val": 0.2, "test": 0.2, "seed": 1}, seed=0,
    )  # fmt: skip
    before, now = fingerprint(module.table), fingerprint(shards.table)
    trained = {module.table.ids[row] for row in module.rows("train")}
    again = [shards.table.ids[row] in trained for row in shards.rows("val")]
    assert any(again) and seen_in_training(before, now, "val").tolist() == again


def test_rows_are_known_again_by_the_inputs_that_both_data_have(mixed):
    before = fingerprint(mixed("here").table)
    module = mixed("here", split={"val": 0.2, "test": 0.2, "seed": 1}, inputs=["text"])
    trained = set(mixed("here").rows("train").tolist())
    expected = [row in trained for row in module.rows("val").tolist()]
    assert any(expected)
    texts = module.table.inputs["text"]
    assert len(set(texts)) == len(texts)
    assert seen_in_training(before, fingerprint(module.table), "val").tolist() == expected
    digests = fingerprint(module.table).digests()
    module.table.inputs["audio"] = [None] * len(texts)  # as for a model that reads it
    assert fingerprint(module.table).digests() == digests


def test_texts_that_were_held_out_as_well_are_no_training_rows(taken):
    rows = [*ROWS, "t,good,a,train\n", "v,good,a,val\n"]
    before, _ = taken(rows)
    now, _ = taken([*rows, "w,good,a,test\n", "x,text 0,a,test\n"], "more.csv")
    assert seen_in_training(before, now, "test").nonzero()[0].tolist() == [11]


def test_columns_of_arrow_arrays_and_of_lists_are_alike():
    cells = ["a", None, "", "b\u00e9", "a"]
    assert column(pyarrow.array(cells)).tolist() == column(cells).tolist()
    assert column(pyarrow.chunked_array([cells[:2], cells[2:]])).tolist() == column(cells).tolist()
    assert len(set(column(cells).tolist())) == 3
    assert column(cells)[1] == column(cells)[2] == 0


@pytest.mark.parametrize("shape", [(), (3,), (100, 2)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int64, torch.uint8, torch.bool])
def test_each_number_of_an_array_counts(shape, dtype):
    x = torch.zeros((50, *shape), dtype=dtype)
    one = x.clone()
    one[7].view(-1)[-1] = 1
    first, second = column(x), column(one)
    assert (first != second).nonzero()[0].tolist() == [7]
    assert (first == first[0]).all() and (first != 0).all()


def test_cells_of_several_parts_are_told_apart():
    large = np.zeros(5000), np.zeros(5000)
    large[1][2500] = 1
    cells = [["a", "b"], ["a'b"], [["a"], "b"], {"a": "b"}, {"a": ["b"]}, [1, 2], [12], [large[0]], [large[1]],
             [np.zeros((2, 3))], [np.zeros((3, 2))], [np.zeros((2, 3), dtype=np.float32)], None, 1, 1.0,
             "1", True]  # fmt: skip
    assert len({cell_bytes(cell) for cell in cells}) == len(cells)


def test_files_that_are_missing_or_have_impossible_names_have_a_fingerprint_too(mixed):
    module = mixed("here")
    before = fingerprint(module.table)
    module.table.inputs["vision"] = ["a\0b", "missing.png", *module.table.inputs["vision"][2:]]
    assert "row 0 (id 'r0')" in differences(before, fingerprint(module.table), module)
