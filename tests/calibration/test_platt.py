"""Platt scaling beside scikit-learn's."""

import math

import numpy as np
import pytest
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator

from mm.calibration.platt import fit_platt
from mm.predictions import Calibration, log_odds, sigmoid


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
        ([1, 1, 1], "all 3 of the predictions are right, wanted some that are not"),
        ([0, 0, 0], "all 3 of the predictions are wrong"),
        ([1, 1, 0], "are not right more often"),
    ],
)
def test_where_no_order_can_be_found_it_says_why(right, said):
    with pytest.raises(ValueError, match=said):
        fit_platt(torch.tensor([0.0, 1.0, 2.0]), torch.tensor(right))
