import numpy as np
import pytest
import torch

from mm.targets.transcript import TranscriptTarget
from mm.types import IGNORE, EncodedInput

TRAIN = np.array([True, True, True, False])


def test_letters_of_the_training_rows_and_back():
    reads = TranscriptTarget("audio")
    found = reads.fit(["ab  a", "", "b", "c"], TRAIN, None)
    assert found.data.classes == (" ", "a", "b")
    assert [v.tolist() for v in found.values] == [[1, 2, 0, 1], [IGNORE], [2], [IGNORE]]
    assert "unknown label 'c'; training rows have" in found.faults[3]
    assert [reads.decode(v, found.data) for v in found.values] == ["ab a", None, "b", None]
    again = reads.fit(["ba", "c"], np.ones(2, bool), found.data)
    assert again.values[0].tolist() == [2, 1]
    assert "the model knows" in again.faults[1]


def test_words():
    reads = TranscriptTarget("audio", units="words")
    found = reads.fit(["one two ", "two", None, "one  one"], TRAIN, None)
    assert found.data.classes == ("one", "two")
    assert found.data.facts == {"input": "audio", "separator": " "}
    assert reads.decode(found.values[3], found.data) == "one one"
    with pytest.raises(ValueError, match="target_codec.units: got 'syllables', wanted one of characters, words"):
        TranscriptTarget("audio", units="syllables")


def test_of_what_is_read_in_part_nobody_knows_the_words():
    target = torch.tensor([1, 2])
    whole = EncodedInput([torch.ones(3)], False)
    assert TranscriptTarget("audio").align(target, whole)[0] is target
    for read in (EncodedInput([torch.ones(3)], True), EncodedInput([torch.ones(3)] * 2, False)):
        with pytest.raises(ValueError, match="is longer than what is read at once"):
            TranscriptTarget("audio").align(target, read)
        assert TranscriptTarget("audio").align(torch.tensor([IGNORE]), read)[0].tolist() == [IGNORE]
