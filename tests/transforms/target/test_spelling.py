import numpy as np
import pytest
import torch

from mm.transforms.target.spelling import Spelling
from mm.types import IGNORE, Read

TRAIN = np.array([True, True, True, False])


def test_letters_of_the_training_rows_and_back():
    reads = Spelling("audio")
    found = reads.learn(["ab  a", "", "b", "c"], TRAIN, None)
    assert found.data.classes == (" ", "a", "b")
    assert [v.tolist() for v in found.values] == [[1, 2, 0, 1], [IGNORE], [2], [IGNORE]]
    assert "unknown label 'c'; training rows have" in found.faults[3]
    assert [reads.readable(v, found.data) for v in found.values] == ["ab a", None, "b", None]
    again = reads.learn(["ba", "c"], np.ones(2, bool), found.data)
    assert again.values[0].tolist() == [2, 1]
    assert "the model knows" in again.faults[1]


def test_words():
    reads = Spelling("audio", units="words")
    found = reads.learn(["one two ", "two", None, "one  one"], TRAIN, None)
    assert found.data.classes == ("one", "two")
    assert found.data.facts == {"input": "audio", "separator": " "}
    assert reads.readable(found.values[3], found.data) == "one one"
    with pytest.raises(ValueError, match="target_codec.units: got 'syllables', wanted one of characters, words"):
        Spelling("audio", units="syllables")


def test_of_what_is_read_in_part_nobody_knows_the_words():
    target = torch.tensor([1, 2])
    whole = Read([torch.ones(3)], False)
    assert Spelling("audio").align(target, whole)[0] is target
    for read in (Read([torch.ones(3)], True), Read([torch.ones(3)] * 2, False)):
        with pytest.raises(ValueError, match="is longer than what is read at once"):
            Spelling("audio").align(target, read)
        assert Spelling("audio").align(torch.tensor([IGNORE]), read)[0].tolist() == [IGNORE]
