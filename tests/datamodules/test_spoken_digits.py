"""Against clips whose height tells digit, speaker and take; and the real ones where there are."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from clips import told, write_clips

from mm.datamodules.spoken_digits import RATE, TAKES, SpokenDigitsDataModule
from mm.targets.transcript import TranscriptTarget

WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
USUAL = {"count": {"train": 40, "val": 10, "test": 20}, "digits": [3, 5], "gap": [0.01, 0.02], "data_seed": 0}
USUAL |= {"batch_size": 8, "num_workers": 0, "on_error": "raise", "split": {"val": 0, "test": 0, "seed": 0}, "seed": 0}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data")
    write_clips(path, RATE, lambda digit: 80 + digit)
    return path


def build(root: Path, **changed: object) -> SpokenDigitsDataModule:
    given = USUAL | {"held_out": None} | changed
    return SpokenDigitsDataModule(path=str(root), readers={"target": TranscriptTarget("audio", "words")}, **given)


def heard(wave: np.ndarray) -> list[tuple[int, str, int]]:
    """Digit, speaker and take of every clip."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], wave]) != 0) & (wave != 0))
    return [told(float(wave[edge])) for edge in edges]


def test_says_what_is_heard_by_one_speaker_and_takes_of_the_split(root: Path) -> None:
    module = build(root)
    table = module.table
    for row, name in enumerate(table.split):
        wave, rate = table.inputs["audio"][row]
        found = heard(wave)
        assert rate == RATE
        assert 3 <= len(found) <= 5
        assert " ".join(WORDS[digit] for digit, _, _ in found) == module.truth("target", row)
        assert {who for _, who, _ in found} == {table.ids[row].split("-")[2]}
        assert {take for _, _, take in found} <= set(TAKES[name])
        silence = int((wave == 0).sum()) / (len(found) - 1)
        assert 0.009 * RATE <= silence <= 0.021 * RATE
    assert [(table.split == name).sum() for name in ("train", "val", "test")] == [40, 10, 20]
    again = build(root).table
    assert all(np.array_equal(again.inputs["audio"][row][0], table.inputs["audio"][row][0]) for row in (0, 45, 69))
    other = build(root, data_seed=1).table
    assert not torch.equal(other.targets["target"][0], table.targets["target"][0])


def test_only_the_test_hears_who_is_held_out(root: Path) -> None:
    table = build(root, held_out="bob").table
    who = np.array([name.split("-")[2] for name in table.ids])
    assert set(who[table.split == "test"]) == {"bob"}
    assert "bob" not in set(who[table.split != "test"])


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"held_out": "bop"}, "held_out: got 'bop', wanted one of ann, bob, zoe; did you mean 'bob'"),
        ({"digits": [5, 3]}, r"digits: got \[5, 3\], wanted the fewest and the most"),
        ({"gap": [0.1]}, "gap: got"),
        ({"count": {"train": 3}}, "count: got"),
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
    table = build(root, held_out="theo").table
    seconds = [len(table.inputs["audio"][row][0]) / RATE for row in range(70)]
    assert 0.6 < min(seconds) < max(seconds) < 6
