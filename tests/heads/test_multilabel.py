"""A row labelled in part counts in part; decoding obeys the threshold."""

import pytest
import torch
import torch.nn.functional as F
from heads.by_heart import learn, pooled
from torchvision.ops import sigmoid_focal_loss

from mm.heads.multilabel import MultilabelHead
from mm.predictions import Bernoulli
from mm.types import IGNORE

TARGET = torch.tensor([[1, 0, 1, 0], [IGNORE, 1, IGNORE, 0], [IGNORE] * 4])


def head(**kwargs):
    return MultilabelHead(classes=["a", "b", "c", "d"], embed_dim=4, **kwargs)


def test_sum_by_count_is_the_mean_over_labelled_elements():
    logits = torch.randn(3, 4)
    total, count = head().loss(Bernoulli(logits), TARGET, None)
    known = TARGET != IGNORE
    torch.testing.assert_close(total / count, F.binary_cross_entropy_with_logits(logits[known], TARGET[known].float()))
    assert count.item() == 1.5


def test_score_drops_rows_without_any_label():
    got, truth = Bernoulli(torch.zeros(3, 4)).metric_inputs(TARGET)
    assert torch.equal(truth, TARGET[:2])
    assert torch.equal(got, torch.full((2, 4), 0.5))


def test_decode_by_threshold():
    logits = Bernoulli(torch.logit(torch.tensor([[0.9, 0.4, 0.6, 0.1], [0.1, 0.1, 0.1, 0.1]])))
    assert [row["prediction"] for row in head().decode(logits, None, {})] == [["a", "c"], []]
    assert head(threshold=0.3).decode(logits, None, {})[0]["prediction"] == ["a", "b", "c"]
    assert head().decode(logits, None, {})[0]["probability"] == pytest.approx({"a": 0.9, "b": 0.4, "c": 0.6, "d": 0.1})


def test_a_threshold_is_a_probability():
    with pytest.raises(ValueError, match="threshold: got 2, wanted a probability"):
        head(threshold=2)


def test_merge_is_the_mean_of_log_odds():
    logits = torch.randn(3, 4)
    merged = Bernoulli(logits).merge(torch.tensor([0, 1, 0]), 2)
    torch.testing.assert_close(merged.logits, torch.stack([(logits[0] + logits[2]) / 2, logits[1]]))


def test_events_have_the_loss_of_the_head():
    logits = torch.randn(3, 4)
    found, truth = Bernoulli(logits).events(TARGET)
    assert found.shape == (2, 4, 1) and torch.equal(truth, TARGET[:2])
    known = truth != IGNORE
    total, count = head().loss(Bernoulli(logits), TARGET, None)
    torch.testing.assert_close(
        F.binary_cross_entropy_with_logits(found[known].squeeze(-1), truth[known].float()), total / count
    )


def test_sets_by_hand():
    """Of each label what is predicted, and the other where its 1 - p is no more than the label's quantile."""
    decoding = head().decoding
    logits = torch.logit(torch.tensor([[0.9, 0.4, 0.6, 0.1], [0.3, 0.6, 0.5, 0.2], [0.5, 0.5, 0.5, 0.5]]))
    scores = Bernoulli(logits).nonconformity(TARGET, decoding)
    torch.testing.assert_close(
        scores, torch.tensor([[0.0, 0.0, 0.0, 0.0], [torch.nan, 0.0, torch.nan, 0.0]]), equal_nan=True
    )
    wrong = Bernoulli(logits).nonconformity(torch.where(TARGET == IGNORE, IGNORE, 1 - TARGET), decoding)
    torch.testing.assert_close(
        wrong, torch.tensor([[0.9, 0.6, 0.6, 0.9], [torch.nan, 0.6, torch.nan, 0.8]]), equal_nan=True
    )
    rows, size = Bernoulli(logits[:2]).prediction_sets([0.8, 0.6001, 0.1, 0.95], decoding, {})
    assert rows[0]["prediction_set"] == {"a": [True], "b": [False, True], "c": [True], "d": [False, True]}
    assert rows[1]["prediction_set"] == {"a": [False, True], "b": [False, True], "c": [True], "d": [False, True]}
    assert size.tolist() == [1.5, 1.75]


def test_weights_of_what_has_a_label_are_torch_s():
    logits, truth = torch.randn(6, 4), torch.randint(2, (6, 4))
    made = head(pos_weight=[1.0, 2.0, 0.5, 4.0])
    wanted = F.binary_cross_entropy_with_logits(logits, truth.float(), pos_weight=torch.tensor([1.0, 2.0, 0.5, 4.0]))
    total, count = made.loss(Bernoulli(logits), truth, None)
    torch.testing.assert_close(total / count, wanted)


def test_balanced_weights_make_both_sides_as_heavy():
    assert head(pos_weight="balanced", counts=[10, 5, 9, 0], rows=10).pos_weight[0] == 1  # 0 would never be learnt
    made = head(pos_weight="balanced", counts=[1, 5, 9, 0], rows=10)
    assert made.pos_weight.tolist() == [9, 1, pytest.approx(1 / 9), 1]
    truth = torch.zeros(10, 4)
    truth[0, 0] = truth[:5, 1] = truth[:9, 2] = 1
    mass = made.pos_weight * truth.sum(0)
    torch.testing.assert_close(mass[:3], (1 - truth).sum(0)[:3])


@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_focal_loss_is_torchvision_s(gamma):
    logits, truth = torch.randn(6, 4) * 3, torch.randint(2, (6, 4))
    total, count = head(focal_gamma=gamma).loss(Bernoulli(logits), truth, None)
    wanted = sigmoid_focal_loss(logits, truth.float(), alpha=-1, gamma=gamma, reduction="mean")
    torch.testing.assert_close(total / count, wanted)


@pytest.mark.parametrize(
    ("kwargs", "said"),
    [
        ({"pos_weight": "even"}, "pos_weight: got 'even', wanted null, balanced"),
        ({"pos_weight": [1.0]}, "pos_weight: got 1 numbers, wanted 4, in the order a, b, c, d"),
        ({"pos_weight": [1, 1, -1, 1]}, "pos_weight: got -1 for 'c', wanted a number, 0 or more"),
        ({"focal_gamma": -1}, "focal_gamma: got -1, wanted 0 or more"),
    ],
)
def test_wrong_weights(kwargs, said):
    with pytest.raises(ValueError, match=said):
        head(**kwargs)


def test_it_learns_by_heart():
    torch.manual_seed(0)
    made = MultilabelHead(classes=["a", "b", "c", "d"], embed_dim=8)
    prediction, fused, total, count = learn(made, TARGET, lambda: pooled(3), steps=200)
    assert total / count < 0.01
    assert [row["prediction"] for row in made.decode(prediction, fused, {})[:1]] == [["a", "c"]]
