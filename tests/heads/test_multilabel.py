"""A row labelled in part counts in part; decoding obeys the threshold."""

import pytest
import torch
import torch.nn.functional as F

from mm.heads.multilabel import MultilabelHead
from mm.types import IGNORE

TARGET = torch.tensor([[1, 0, 1, 0], [IGNORE, 1, IGNORE, 0], [IGNORE] * 4])


def head(**kwargs):
    return MultilabelHead(classes=["a", "b", "c", "d"], embed_dim=4, **kwargs)


def test_sum_by_count_is_the_mean_over_labelled_elements():
    logits = torch.randn(3, 4)
    total, count = head().loss(logits, TARGET, None)
    known = TARGET != IGNORE
    torch.testing.assert_close(total / count, F.binary_cross_entropy_with_logits(logits[known], TARGET[known].float()))
    assert count.item() == 1.5


def test_score_drops_rows_without_any_label():
    got, truth = head().score(torch.zeros(3, 4), TARGET)
    assert torch.equal(truth, TARGET[:2])
    assert torch.equal(got, torch.full((2, 4), 0.5))


def test_decode_by_threshold():
    logits = torch.logit(torch.tensor([[0.9, 0.4, 0.6, 0.1], [0.1, 0.1, 0.1, 0.1]]))
    assert [row["prediction"] for row in head().decode(logits, None, {})] == [["a", "c"], []]
    assert head(threshold=0.3).decode(logits, None, {})[0]["prediction"] == ["a", "b", "c"]
    assert head().decode(logits, None, {})[0]["probability"] == pytest.approx({"a": 0.9, "b": 0.4, "c": 0.6, "d": 0.1})


def test_a_threshold_is_a_probability():
    with pytest.raises(ValueError, match="threshold: got 2, wanted a probability"):
        head(threshold=2)


def test_merge_is_the_mean_of_log_odds():
    logits = torch.randn(3, 4)
    merged = head().merge(logits, torch.tensor([0, 1, 0]), 2)
    torch.testing.assert_close(merged, torch.stack([(logits[0] + logits[2]) / 2, logits[1]]))
