"""Fingerprints of splits: equal for equal data, and each change is found and named."""

import re

import numpy as np
import pytest
import torch

from mm.datamodules.digits import DigitsDataModule
from mm.datamodules.fingerprint import differences, fingerprint, from_tensors, seen_in_training

HEAD = "id,words,label,split\n"
ROWS = [f"r{i},text {i},{'ab'[i % 2]},{('train', 'train', 'val', 'test')[i % 4]}\n" for i in range(40)]
ROLES = {"text": "words", "target": "label", "id": "id", "split_column": "split"}


@pytest.fixture
def taken(make):
    def take(rows, name="rows.csv"):
        table = make(name, HEAD + "".join(rows), **ROLES).table
        return fingerprint(table), table

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
    now, table = taken(change(ROWS), "changed.csv")
    assert re.search(words, differences(before, now, table)), differences(before, now, table)
    assert before.digests() != now.digests()
    assert differences(before, before, table) == ""


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
