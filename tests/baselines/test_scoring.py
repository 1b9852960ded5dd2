import numpy as np
import pytest
import torch
from scipy.special import expit, log_softmax
from sklearn.metrics import accuracy_score, f1_score, log_loss, mean_squared_error

from mm.baselines.scoring import (
    calibrate_scores,
    default_metrics,
    fuse_scores,
    mean_loss,
    measure_scores,
    prior_scores,
)
from mm.types import IGNORE, TargetData

RANDOM = np.random.default_rng(0)


def test_losses_are_those_of_scikit_learn():
    scores, target = RANDOM.normal(size=(30, 4)), RANDOM.integers(0, 4, 30)
    assert mean_loss("class", scores, target) == pytest.approx(log_loss(target, np.exp(log_softmax(scores, 1))))
    labels = RANDOM.integers(0, 2, (30, 4))
    assert mean_loss("labels", scores, labels) == pytest.approx(log_loss(labels.ravel(), expit(scores).ravel()))
    numbers = RANDOM.normal(size=30)
    assert mean_loss("number", scores[:, :1], numbers) == pytest.approx(mean_squared_error(numbers, scores[:, 0]))


def test_unknown_labels_do_not_count():
    scores, target = np.array([[3.0, -9.0]]), np.array([[1, IGNORE]])
    assert mean_loss("labels", scores, target) == pytest.approx(np.log1p(np.exp(-3)))


def test_metrics_are_those_of_scikit_learn():
    scores, target = RANDOM.normal(size=(50, 3)), RANDOM.integers(0, 3, 50)
    metrics = default_metrics(TargetData(kind="class", classes=("a", "b", "c")))
    measured = measure_scores("class", scores, torch.from_numpy(target), metrics)
    answer = scores.argmax(1)
    assert measured["accuracy"] == pytest.approx(accuracy_score(target, answer))
    assert measured["f1_macro"] == pytest.approx(f1_score(target, answer, average="macro"))
    assert measured["rows"] == 50
    assert not any("/" in name for name in measured)


def test_metrics_wait_for_no_other_process():
    metrics = default_metrics(TargetData(kind="class", classes=("a", "b")))
    for metric in metrics.values():
        metric.distributed_available_fn = lambda: True  # as in a distributed training
        metric.dist_sync_fn = lambda *_, **__: pytest.fail("it would wait for the other processes")
    target = torch.tensor([0, 1])
    assert measure_scores("class", np.eye(2), target, metrics)["accuracy"] == 1
    with pytest.raises(pytest.fail.Exception):
        metrics["accuracy"].update(torch.eye(2), target)
        metrics["accuracy"].compute()


def test_nothing_is_measured_without_labels():
    metrics = default_metrics(TargetData(kind="class", classes=("a", "b")))
    assert measure_scores("class", np.zeros((2, 2)), torch.tensor([IGNORE, IGNORE]), metrics) == {}


def test_priors():
    prior = prior_scores("class", np.array([0, 0, 2]), 3)
    assert prior.argmax() == 0 and np.exp(prior).sum() == pytest.approx(1)
    assert prior_scores("number", np.array([1.0, 2.0]), 1).tolist() == [1.5]
    labels = prior_scores("labels", np.array([[1, 0], [1, 0], [IGNORE, 1]]), 2)
    assert labels[0] > 0 > labels[1]


def test_temperature_makes_overconfident_scores_mild():
    target = np.array([0, 1] * 20)
    scores = np.where(np.eye(2)[target] > 0, 20.0, -20.0)
    scores[:10] *= -1  # a quarter is wrong
    rows = np.arange(40)
    calibrated = calibrate_scores("class", scores, rows, target)
    assert (calibrated.argmax(1) == scores.argmax(1)).all()
    assert mean_loss("class", calibrated, target) < 0.6 < mean_loss("class", scores, target)


def test_fusion_chooses_the_input_that_tells_and_ignores_noise():
    target = RANDOM.integers(0, 3, 200)
    prior = np.log(np.full(3, 1 / 3))
    good = log_softmax(3.0 * np.eye(3)[target] + RANDOM.normal(size=(200, 3)), 1)
    noise = log_softmax(3.0 * RANDOM.normal(size=(200, 3)), 1)
    rows = np.arange(100)
    fused, weights = fuse_scores("class", prior, [good, noise], rows, target[:100])
    assert weights[0] > 0.5 and weights[1] <= 0.25
    assert mean_loss("class", fused[:100], target[:100]) <= mean_loss("class", good[:100], target[:100])


def test_an_absent_input_adds_nothing_to_the_fusion():
    prior = np.log([0.7, 0.3])
    one = np.log([[0.2, 0.8]])
    none = np.array([], dtype=int)
    fused, _ = fuse_scores("class", prior, [one, prior[None]], none, none)
    np.testing.assert_allclose(fused, one)
