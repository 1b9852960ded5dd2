"""Losses against torch's mean, a number worked by hand and torchvision's focal loss; weights against scikit-learn."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.utils.class_weight import compute_class_weight
from torchvision.ops import sigmoid_focal_loss

from mm.heads._classifying import balanced_weights, class_loss
from mm.heads.classification import ClassificationHead
from mm.predictions import Categorical
from mm.types import IGNORE

TARGET = torch.tensor([0, 2, IGNORE, 1, 1])


def head(**kwargs):
    return ClassificationHead(classes=["zero", "one", "two"], embed_dim=4, **kwargs)


@pytest.mark.parametrize("weight", [None, torch.tensor([0.5, 2.0, 1.0])])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_sum_by_count_is_torch_s_mean(weight, smoothing):
    logits = torch.randn(5, 3)
    total, count = class_loss(logits, TARGET, weight, smoothing)
    wanted = F.cross_entropy(logits, TARGET, weight, label_smoothing=smoothing)  # ignores -100, divides by the weights
    torch.testing.assert_close(total / count, wanted)


def test_focal_by_hand():
    logits = torch.tensor([[math.log(0.75), math.log(0.25)]])
    total, count = class_loss(logits, torch.tensor([0]), gamma=2.0)
    assert total.item() == pytest.approx(0.25**2 * 0.2876820724, rel=1e-5)  # (1 - 0.75)^2 * -log 0.75
    assert count.item() == 1


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
def test_focal_of_two_classes_is_torchvision_s(gamma):
    margin, target = torch.randn(20) * 3, torch.randint(2, (20,))
    wanted = sigmoid_focal_loss(margin, target.float(), alpha=-1, gamma=gamma, reduction="sum")
    total, _ = class_loss(torch.stack([torch.zeros(20), margin], dim=1), target, gamma=gamma)
    torch.testing.assert_close(total, wanted)


def test_focal_gradient_is_finite_where_the_answer_is_certain():
    logits = torch.tensor([[100.0, -100.0], [-100.0, 100.0]], requires_grad=True)
    class_loss(logits, torch.tensor([0, 0]), gamma=0.5)[0].backward()
    assert logits.grad.isfinite().all()


def test_balanced_is_scikit_learn_s():
    rows = np.repeat([0, 1, 2], [7, 2, 1])
    wanted = compute_class_weight("balanced", classes=np.arange(3), y=rows)
    torch.testing.assert_close(balanced_weights([7, 2, 1]), torch.tensor(wanted, dtype=torch.float32))
    assert balanced_weights([4, 0])[1] == 1
    assert torch.equal(head(class_weights="balanced", counts=[7, 2, 1]).class_loss.weights, balanced_weights([7, 2, 1]))


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"class_weights": "balance"}, "wanted null, balanced"),
        ({"class_weights": "balanced"}, "got 0 counts, wanted one for each of 3"),
        ({"class_weights": [1.0, 2.0]}, "got 2 numbers, wanted 3, in the order zero, one, two"),
        ({"class_weights": 3.0}, "got 1 numbers, wanted 3"),
        ({"class_weights": [1.0, -2.0, 1.0]}, "class_weights: got -2.0 for 'one', wanted a number, 0 or more"),
        ({"class_weights": [1.0, float("nan"), 1.0]}, "got nan for 'one'"),
        ({"class_weights": [1.0, "a", 1.0]}, "got a for 'one'"),
        ({"focal_gamma": float("inf")}, "focal_gamma: got inf"),
        ({"label_smoothing": 3}, "label_smoothing: got 3, wanted a part from 0"),
        ({"focal_gamma": -1}, "focal_gamma: got -1, wanted 0 or more"),
    ],
)
def test_wrong_numbers_are_refused(kwargs, message):
    with pytest.raises(ValueError, match=message):
        head(**kwargs)


def test_one_class_is_refused():
    with pytest.raises(ValueError, match=r"classes: got \['one'\], wanted two or more"):
        ClassificationHead(classes=["one"], embed_dim=4)


def test_score_drops_unlabelled_rows_and_gives_probabilities():
    got, truth = Categorical(torch.log(torch.tensor([[0.2, 0.3, 0.5]])).expand(5, 3)).metric_inputs(TARGET)
    assert truth.tolist() == [0, 2, 1, 1]
    torch.testing.assert_close(got, torch.tensor([[0.2, 0.3, 0.5]]).expand(4, 3))


def test_decode_names_the_class():
    row = head().decode(Categorical(torch.log(torch.tensor([[0.125, 0.625, 0.25]]))), None, {})[0]
    assert row["prediction"] == "one"
    assert row["probability"] == pytest.approx({"zero": 0.125, "one": 0.625, "two": 0.25})


def test_merge_is_the_mean_of_log_probabilities():
    p = torch.tensor([[0.9, 0.05, 0.05], [0.1, 0.8, 0.1], [0.2, 0.3, 0.5]])
    merged = Categorical(p.log() + 7).merge(torch.tensor([1, 0, 1]), 2)  # a constant on logits changes nothing
    torch.testing.assert_close(merged.logits, torch.stack([p[1].log(), (p[0].log() + p[2].log()) / 2]))


P = torch.tensor([[0.5, 0.3, 0.2], [0.9, 0.06, 0.04], [0.2, 0.41, 0.39], [0.1, 0.6, 0.3], [0.6, 0.1, 0.3]])


def test_events_have_the_loss_of_the_head():
    prediction = Categorical(torch.randn(5, 3))
    found, truth = prediction.events(TARGET)
    assert found.shape == (4, 1, 3) and truth.tolist() == [[0], [2], [1], [1]]
    total, count = head().loss(prediction, TARGET, None)
    torch.testing.assert_close(F.cross_entropy(found[:, 0], truth[:, 0]), total / count)
    torch.testing.assert_close(prediction.temper(2.0).events(TARGET)[0], found / 2)


def test_sets_by_hand():
    """The best is always in, others if 1 - p is no more than the quantile."""
    decoding = head().decoding
    scores = Categorical(P.log()).nonconformity(TARGET, decoding)
    torch.testing.assert_close(scores, torch.tensor([[0.0], [0.96], [0.0], [0.9]]))
    rows, size = Categorical(P.log()).prediction_sets([0.7001], decoding, {})
    assert [row["prediction_set"] for row in rows] == [
        ["zero", "one"],
        ["zero"],
        ["one", "two"],
        ["one", "two"],
        ["zero", "two"],
    ]
    assert size.tolist() == [2, 1, 2, 2, 2]
    assert [row["prediction_set"] for row in Categorical(P.log()).prediction_sets([0.0], decoding, {})[0]] == [
        ["zero"],
        ["zero"],
        ["one"],
        ["one"],
        ["zero"],
    ]
