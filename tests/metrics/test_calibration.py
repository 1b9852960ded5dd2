"""Temperatures beside scikit-learn's, errors beside torchmetrics', quantiles by hand, coverage by what is likely."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import betabinom
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from torchmetrics.classification import BinaryCalibrationError, MulticlassCalibrationError

from mm.heads.classification import ClassificationHead
from mm.heads.regression import RegressionHead
from mm.metrics.calibration import (
    calibration_error,
    confidence,
    coverage,
    figure,
    fit_platt,
    fit_temperature,
    negative_log_likelihood,
    quantile,
)
from mm.predictions import Calibration, Categorical, Scalar, log_odds, sigmoid
from mm.types import IGNORE


def drawn(rows: int, classes: int = 4, seed: int = 0, questions: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits, and truth that is drawn from what they say: they are calibrated."""
    maker = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(rows, questions, classes, generator=maker)
    truth = logits.softmax(-1).flatten(0, 1).multinomial(1, generator=maker).view(rows, questions)
    return logits, truth


def test_temperature_is_scikit_learn_s():
    rng = np.random.default_rng(0)
    centres = rng.normal(0, 1, (3, 5))
    y = rng.integers(3, size=900)
    x = centres[y] + rng.normal(0, 1.5, (900, 5))
    sure = LogisticRegression(C=1e6).fit(3 * x[:40], y[:40])  # of few rows: far too sure
    theirs = CalibratedClassifierCV(FrozenEstimator(sure), method="temperature").fit(3 * x[40:], y[40:])
    logits, truth = torch.tensor(sure.decision_function(3 * x)), torch.tensor(y)
    found = fit_temperature(logits[40:].unsqueeze(1), truth[40:].unsqueeze(1))
    assert found > 2
    np.testing.assert_allclose((logits / found).softmax(-1), theirs.predict_proba(3 * x), atol=1e-4)


@pytest.mark.parametrize("by", [1.0, 3.0, 0.25])
def test_what_is_calibrated_needs_no_temperature_and_what_is_multiplied_gets_the_factor(by):
    logits, truth = drawn(20_000)
    found = fit_temperature(by * logits, truth)
    assert found == pytest.approx(by, rel=0.03)
    assert found == pytest.approx(by * fit_temperature(logits, truth), rel=1e-6)  # to the last digits, not by chance
    before, after = confidence(by * logits[:, 0], truth[:, 0]), confidence(by * logits[:, 0] / found, truth[:, 0])
    assert torch.equal(before[1], after[1])  # what is right stays right
    if by != 1:
        assert calibration_error(by * logits / found, truth) < 0.015 < 0.05 < calibration_error(by * logits, truth)
        assert negative_log_likelihood(by * logits / found, truth) < negative_log_likelihood(by * logits, truth)


def test_platt_is_scikit_learn_s_and_the_greatest_likelihood():
    rng = np.random.default_rng(1)
    odds = rng.normal(1, 2, 800)
    right = (rng.random(800) < 1 / (1 + np.exp(-(0.4 * odds - 1)))).astype(int)
    temperature, bias = fit_platt(torch.tensor(odds), torch.tensor(right))
    assert (1 / temperature, bias) == pytest.approx((0.4, -1), abs=0.25)

    class Told(ClassifierMixin, BaseEstimator):
        classes_ = np.array([0, 1])

        def fit(self, x, y):
            return self

        def __sklearn_is_fitted__(self):
            return True

        def decision_function(self, x):
            return x[:, 0]

        def predict(self, x):
            return (x[:, 0] > 0).astype(int)

    theirs = CalibratedClassifierCV(FrozenEstimator(Told()), method="sigmoid").fit(odds[:, None], right)
    ours = 1 / (1 + np.exp(-(odds / temperature + bias)))
    np.testing.assert_allclose(ours, theirs.predict_proba(odds[:, None])[:, 1], atol=2e-4)
    revise = Calibration(temperature=temperature, bias=bias).scale_log_odds
    told = sigmoid(revise(log_odds(0.3)))
    assert told == pytest.approx(1 / (1 + math.exp(-(math.log(3 / 7) / temperature + bias))))
    told = [sigmoid(revise(log_odds(p))) for p in (0.0, 1e-5, 0.5, 1.0)]
    assert told == sorted(set(told)) and told[-1] < 1


def test_platt_of_log_odds_of_long_texts():
    """A text of 600 tokens has log-odds of -100: the fit finds the curve that drew which are right."""
    rng = np.random.default_rng(0)
    odds = torch.tensor(rng.uniform(-400, 0, 4000))
    right = torch.tensor((rng.random(4000) < 1 / (1 + np.exp(-(odds.numpy() / 50 + 4)))).astype(int))
    temperature, bias = fit_platt(odds, right)
    assert temperature == pytest.approx(50, rel=0.1)
    assert bias == pytest.approx(4, rel=0.1)
    assert sigmoid(-1e9) == 0 and sigmoid(1e9) == 1


@pytest.mark.parametrize(
    ("right", "said"),
    [
        ([1, 1, 1], "all 3 of what is told are right, wanted some that are not"),
        ([0, 0, 0], "all 3 of what is told are wrong"),
        ([1, 1, 0], "is not right more often"),
    ],
)
def test_where_no_order_can_be_found_it_says_why(right, said):
    with pytest.raises(ValueError, match=said):
        fit_platt(torch.tensor([0.0, 1.0, 2.0]), torch.tensor(right))


def test_a_yes_or_no_is_two_choices():
    logits, truth = drawn(500, classes=2, questions=3)
    truth[::7, 1] = IGNORE
    yes = logits[..., 1:] - logits[..., :1]
    assert fit_temperature(2 * yes, truth) == pytest.approx(fit_temperature(2 * logits, truth))
    assert negative_log_likelihood(yes, truth) == pytest.approx(negative_log_likelihood(logits, truth), rel=1e-5)


def test_what_can_not_be_chosen_is_of_no_account():
    logits, truth = drawn(300)
    more = torch.cat([logits, torch.full_like(logits, -1e9)], dim=-1)
    assert fit_temperature(more, truth) == pytest.approx(fit_temperature(logits, truth))
    wrong = torch.tensor([[[3.0, 2.0, -1e9, -1e9]], [[2.0, 3.0, -1e9, -1e9]]])
    for bad, told in ((torch.where(more < -1e8, more, 0.0), truth), (wrong, torch.tensor([[1], [0]]))):
        with pytest.raises(ValueError, match="no better than by chance"):
            fit_temperature(bad, told)


@pytest.mark.parametrize(
    ("logits", "truth", "said"),
    [
        ([[2.0, 0.0], [0.0, 2.0]], [0, 1], "all 2 labels are told right"),
        ([[2.0, 0.0], [0.0, 2.0]], [1, 0], "the 2 labels are told no better than by chance"),
        ([[2.0, 0.0], [0.0, 2.0]], [1, 1], "all 2 labels are of one class, wanted at least two"),
        ([[2.0, 0.0], [0.0, 2.0]], [IGNORE, IGNORE], "none of the 2 rows is labelled"),
    ],
)
def test_where_no_temperature_is_best_it_says_why(logits, truth, said):
    with pytest.raises(ValueError, match=said):
        fit_temperature(torch.tensor(logits).unsqueeze(1), torch.tensor(truth).unsqueeze(1))


def test_errors_are_torchmetrics_and_scikit_learn_s():
    logits, truth = drawn(400, seed=1)
    p = (3 * logits[:, 0]).softmax(-1)
    theirs = MulticlassCalibrationError(num_classes=4)(p, truth[:, 0])
    assert calibration_error(3 * logits, truth) == pytest.approx(float(theirs), abs=1e-6)
    assert negative_log_likelihood(logits, truth) == pytest.approx(
        log_loss(truth[:, 0], logits[:, 0].double().softmax(-1), labels=range(4)), rel=1e-6
    )
    yes, told = torch.randn(400, 3, 1), torch.randint(2, (400, 3))
    told[:100, 0] = IGNORE
    each = [BinaryCalibrationError(ignore_index=IGNORE)(yes[:, g, 0].sigmoid(), told[:, g]) for g in range(3)]
    assert calibration_error(yes, told) == pytest.approx(float(torch.stack(each).mean()), abs=1e-6)


def test_calibration_error_by_hand():
    """Four rows say 0.9 and two are right, one says 0.6 and is: (4 * 0.4 + 1 * 0.4) / 5."""
    logits = torch.tensor([[9.0, 1.0]] * 4 + [[6.0, 4.0]]).log().unsqueeze(1)
    truth = torch.tensor([[0], [0], [1], [1], [0]])
    assert calibration_error(logits, truth) == pytest.approx((4 * 0.4 + 0.4) / 5)


@pytest.mark.parametrize(
    ("rows", "alpha", "rank"),
    [(9, 0.1, 9), (19, 0.1, 18), (10, 0.1, 10), (99, 0.29, 71), (4, 0.5, 3), (1, 0.5, 1), (999, 0.05, 950)],
)
def test_quantile_by_hand(rows, alpha, rank):
    """The scores are 1 to n, so that the quantile is its rank: ceil((n + 1) (1 - alpha))."""
    scores = torch.arange(1.0, rows + 1)[torch.randperm(rows)]
    assert quantile(scores, alpha) == rank
    assert quantile(torch.cat([scores, torch.tensor([torch.nan])]), alpha) == rank
    level = min(1.0, rank / rows)
    assert quantile(scores, alpha) == np.quantile(scores.numpy(), level, method="inverted_cdf")


@pytest.mark.parametrize(("rows", "alpha", "least"), [(8, 0.1, 9), (0, 0.5, 1), (98, 0.01, 99), (18, 0.05, 19)])
def test_too_few_rows_for_a_quantile(rows, alpha, least):
    with pytest.raises(ValueError, match=f"{rows} labelled rows, wanted at least {least}, which is 1 / {alpha:g} - 1"):
        quantile(torch.rand(rows), alpha)
    assert quantile(torch.arange(float(least)), alpha) == least - 1


@pytest.mark.parametrize("alpha", [0.05, 0.1, 0.3])
@pytest.mark.parametrize("kind", ["sets", "intervals"])
def test_coverage_is_what_chance_allows(kind, alpha):
    """Of m new rows those inside are beta-binomial: (n + 1) (1 - alpha) and the rest (Angelopoulos & Bates 2021)."""
    n, m = 300, 4000
    for seed in range(5):
        if kind == "sets":
            head = ClassificationHead(classes=list("abcd"), embed_dim=1)
            logits, truth = drawn(n + m, seed=seed)
            fitting, new = (
                Categorical(3 * logits[:n, 0]),
                Categorical(3 * logits[n:, 0]),
            )  # far too sure
            target = truth[:, 0]
        else:
            head = RegressionHead(embed_dim=1, mean=0.0, std=1.0)
            maker = torch.Generator().manual_seed(seed)
            prediction = torch.randn(n + m, generator=maker)
            fitting, new = Scalar(prediction[:n]), Scalar(prediction[n:])
            target = prediction.exp() * torch.randn(n + m, generator=maker)
        limit = quantile(fitting.nonconformity(target[:n], head.decoding)[:, 0], alpha)
        (part,) = coverage(new.nonconformity(target[n:], head.decoding), (limit,))
        out = math.floor((n + 1) * alpha)
        low, high = betabinom(m, n + 1 - out, out).ppf([1e-4, 1 - 1e-4])
        assert low <= round(part * m) <= high
        told, size = new.prediction_sets((limit,), head.decoding, {})
        if kind == "sets":
            inside = [head.classes[t] in row["set"] for row, t in zip(told, target[n:].tolist())]
            assert size.tolist() == [len(row["set"]) for row in told]
        else:
            inside = [low <= t <= high for (low, high), t in zip((r["interval"] for r in told), target[n:].tolist())]
        assert sum(inside) == pytest.approx(part * m, abs=1)  # a truth on the edge, to the last digit


def test_coverage_of_each_question():
    scores = torch.tensor([[0.1, 0.9], [0.4, torch.nan], [0.6, 0.2]])
    assert coverage(scores, (0.4, 0.5)) == pytest.approx([2 / 3, 1 / 2])
    assert coverage(scores[1:2], (0.4, 0.5)) == [1.0]


def test_the_diagram_shows_what_is_right_in_each_bin():
    logits = torch.tensor([[9.0, 1.0]] * 4 + [[6.0, 4.0]]).log().unsqueeze(1)
    truth = torch.tensor([[0], [0], [1], [1], [0]])
    drawing = figure({"before": (logits, truth), "after": (logits / 2, truth)})
    upper, _, lower, _ = drawing.axes
    assert [axes.get_title() for axes in drawing.axes[:2]] == ["before", "after"]
    bars = [(bar.get_x(), bar.get_height()) for bar in upper.containers[0]]
    np.testing.assert_allclose(bars, [(9 / 15, 1.0), (13 / 15, 0.5)])  # 0.6 begins the tenth of the 15 bins
    np.testing.assert_allclose([bar.get_height() for bar in upper.containers[1]], [-0.4, 0.4], atol=1e-6)
    assert [round(bar.get_height(), 3) for bar in lower.containers[0] if bar.get_height()] == [0.2, 0.8]
