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


def test_choices_have_the_loss_of_the_head():
    logits = torch.randn(3, 4)
    found, truth = head().choices(logits, TARGET)
    assert found.shape == (2, 4, 1) and torch.equal(truth, TARGET[:2])
    known = truth != IGNORE
    total, count = head().loss(logits, TARGET, None)
    torch.testing.assert_close(
        F.binary_cross_entropy_with_logits(found[known].squeeze(-1), truth[known].float()), total / count
    )


def test_sets_by_hand():
    """Of each label what is predicted, and the other where its 1 - p is no more than the label's quantile."""
    logits = torch.logit(torch.tensor([[0.9, 0.4, 0.6, 0.1], [0.3, 0.6, 0.5, 0.2], [0.5, 0.5, 0.5, 0.5]]))
    scores = head().nonconformity(logits, TARGET)
    torch.testing.assert_close(
        scores, torch.tensor([[0.0, 0.0, 0.0, 0.0], [torch.nan, 0.0, torch.nan, 0.0]]), equal_nan=True
    )
    wrong = head().nonconformity(logits, torch.where(TARGET == IGNORE, IGNORE, 1 - TARGET))
    torch.testing.assert_close(
        wrong, torch.tensor([[0.9, 0.6, 0.6, 0.9], [torch.nan, 0.6, torch.nan, 0.8]]), equal_nan=True
    )
    rows, size = head().region(logits[:2], [0.8, 0.6001, 0.1, 0.95])
    assert rows[0]["set"] == {"a": [True], "b": [False, True], "c": [True], "d": [False, True]}
    assert rows[1]["set"] == {"a": [False, True], "b": [False, True], "c": [True], "d": [False, True]}
    assert size.tolist() == [1.5, 1.75]
