"""Against clips whose height tells digit, speaker and take; and the real ones where there are."""

import os
from pathlib import Path

import pytest
from clips import told, write_clips

from mm.datamodules.fsdd import RATE, FSDDDataModule

USUAL = {"batch_size": 8, "num_workers": 0, "on_error": "raise", "split": {"val": 0, "test": 0, "seed": 0}, "seed": 0}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data")
    write_clips(path, RATE, lambda digit: 80)
    return path


def build(root: Path, **changed: object) -> FSDDDataModule:
    return FSDDDataModule(path=str(root), **USUAL | {"held_out": None, "target": "digit"} | changed)


def heard(module: FSDDDataModule, split: str) -> list[tuple[int, str, int]]:
    """Digit, speaker and take of every row, by how it sounds."""
    found = []
    for row in module.rows(split).tolist():
        wave, rate = module.table.inputs["audio"][row]
        assert rate == RATE
        found.append(told(float(wave[0])))
    return found


def test_a_row_is_what_its_id_and_label_say(root: Path) -> None:
    for target, place in (("digit", 0), ("speaker", 1)):
        module = build(root, target=target)
        rows, clips = module.rows("all").tolist(), heard(module, "all")
        assert len(set(clips)) == len(clips) == 10 * 3 * 50
        assert [module.table.ids[row] for row in rows] == ["_".join(map(str, clip)) for clip in clips]
        assert [module.truth("target", row) for row in rows] == [str(clip[place]) for clip in clips]


def test_takes_of_each_split(root: Path) -> None:
    takes = {split: {take for _, _, take in heard(build(root), split)} for split in ("train", "val", "test")}
    assert takes == {"train": set(range(10, 50)), "val": set(range(5, 10)), "test": set(range(5))}


def test_only_the_test_hears_who_is_held_out(root: Path) -> None:
    module = build(root, held_out="bob")
    assert {(who, take) for _, who, take in heard(module, "test")} == {("bob", take) for take in range(50)}
    for split, takes in (("train", range(10, 50)), ("val", range(5, 10))):
        assert {(who, take) for _, who, take in heard(module, split)} == {(s, t) for s in ("ann", "zoe") for t in takes}
    assert len(module.rows("all")) == 1500 - 2 * 10 * 5  # test takes of the others are in no split


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"held_out": "bop"}, "held_out: got 'bop', wanted one of ann, bob, zoe; did you mean 'bob'"),
        ({"target": "digits"}, "target: got 'digits', wanted one of digit, speaker; did you mean 'digit'"),
        ({"target": "speaker", "held_out": "bob"}, "held_out: a speaker whom training has not heard can't be told"),
    ],
)
def test_mistakes(root: Path, changed: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        _ = build(root, **changed).table


def test_no_recordings(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no recordings in"):
        _ = build(tmp_path).table


def test_the_real_ones() -> None:
    root = Path(os.environ.get("MM_DATA", "data"))
    if not (root / "fsdd").is_dir():
        pytest.skip("the Free Spoken Digit Dataset is not there; set MM_DATA")
    module = build(root, held_out="theo")
    assert [len(module.rows(split)) for split in ("train", "val", "test")] == [2000, 250, 500]
