from pathlib import Path

import numpy as np
import pytest
import torch

from mm.targets.text import TextTarget
from mm.types import IGNORE

TRAIN = np.array([True, True, True, False])


def test_tokens_of_the_training_rows_and_back(tmp_path):
    reads = TextTarget("bpe", 300, 16, str(tmp_path))
    found = reads.fit(["a dog", "", "two dogs", "ein Hund"], TRAIN, None)
    facts = found.data.facts
    assert (facts["bos_token_id"], facts["eos_token_id"], facts["max_length"]) == (2, 3, 16)
    assert all(values[-1] == 3 for values in (found.values[0], found.values[2], found.values[3]))
    assert found.values[1].tolist() == [IGNORE]
    assert [reads.decode(v, found.data) for v in found.values] == ["a dog", None, "two dogs", "ein Hund"]
    assert len(found.values[0]) < len(found.values[3])  # of letters that no training row has merged
    again = TextTarget(facts["tokenizer"], 300, 16).fit(["two dogs"], np.ones(1, bool), found.data)
    assert torch.equal(again.values[0], found.values[2])
    assert again.data == found.data


def test_what_is_too_long_or_no_text_is_told(tmp_path):
    reads = TextTarget("bpe", 300, 6, str(tmp_path))
    found = reads.fit(["a dog", "a dog", "\udcff", "a bc d ef g hi"], np.array([True, True, False, True]), None)
    assert "tokens and an end, at most 6 are written; raise target_codec.max_length" in found.faults[3]
    assert "not valid UTF-8" in found.faults[2]
    assert [values.tolist() for values in found.values[2:]] == [[IGNORE], [IGNORE]]
    with pytest.raises(ValueError, match="target_codec.max_length: got 1, wanted at least 2"):
        TextTarget("bpe", 300, 1)


def test_a_text_that_is_too_long_to_be_written_is_measured_whole(tmp_path: Path, printed_log) -> None:
    """Validation and test rows may not get easier, or fewer, because of the length that a model can write."""
    cells = ["a dog", "a dog", "a cat", "a dog a dog a dog"]
    found = TextTarget("bpe", 300, 6, str(tmp_path)).fit(cells, TRAIN, None)
    assert not found.faults
    assert len(found.values[3]) == 6 and found.values[3][-1] != found.data.facts["eos_token_id"]
    assert found.written is not None and found.written[3] == cells[3]
    assert "more than 6 tokens: 1" in printed_log.readouterr().out
    refused = TextTarget("bpe", 300, 6, str(tmp_path)).fit(cells, np.ones(4, bool), None)
    assert "at most 6 are written" in refused.faults[3]


def test_what_was_written_is_kept_and_special_strings_are_none(tmp_path):
    reads = TextTarget("wordpiece", 60, 30, str(tmp_path))
    cells = ["don't stop", "a dog", "a </s> b", "\u6f22 a", None]
    found = reads.fit(cells, np.array([True, True, False, False, False]), None)
    assert list(found.written) == [*cells[:4], None]
    assert (found.values[2] == 3).sum() == 1  # the end alone
    known = TextTarget(found.data.facts["tokenizer"], 60, 4).fit(["a dog a dog a dog"], np.ones(1, bool), found.data)
    assert not known.faults and len(known.values[0]) == 4
    assert list(known.written) == ["a dog a dog a dog"]
