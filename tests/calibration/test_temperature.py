"""Temperatures beside scikit-learn's."""

import numpy as np
import pytest
import torch
from planted_logits import drawn
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression

from mm.calibration.reliability import calibration_error, confidence_and_correctness
from mm.calibration.temperature import fit_temperature, negative_log_likelihood
from mm.types import IGNORE


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
    before, after = (
        confidence_and_correctness(by * logits[:, 0], truth[:, 0]),
        confidence_and_correctness(by * logits[:, 0] / found, truth[:, 0]),
    )
    assert torch.equal(before[1], after[1])  # what is right stays right
    if by != 1:
        assert calibration_error(by * logits / found, truth) < 0.015 < 0.05 < calibration_error(by * logits, truth)
        assert negative_log_likelihood(by * logits / found, truth) < negative_log_likelihood(by * logits, truth)


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
        ([[2.0, 0.0], [0.0, 2.0]], [0, 1], "all 2 labels are predicted correctly"),
        ([[2.0, 0.0], [0.0, 2.0]], [1, 0], "the 2 labels are predicted no better than by chance"),
        ([[2.0, 0.0], [0.0, 2.0]], [1, 1], "all 2 labels are of one class, wanted at least two"),
        ([[2.0, 0.0], [0.0, 2.0]], [IGNORE, IGNORE], "none of the 2 rows has a label"),
    ],
)
def test_where_no_temperature_is_best_it_says_why(logits, truth, said):
    with pytest.raises(ValueError, match=said):
        fit_temperature(torch.tensor(logits).unsqueeze(1), torch.tensor(truth).unsqueeze(1))
