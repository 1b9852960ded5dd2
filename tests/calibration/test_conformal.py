"""Quantiles by hand, and coverage by what is likely."""

import math

import numpy as np
import pytest
import torch
from planted_logits import drawn
from scipy.stats import betabinom

from mm.calibration.conformal import conformal_quantile, coverage_by_question
from mm.heads.classification import ClassificationHead
from mm.heads.regression import RegressionHead
from mm.predictions import Categorical, Scalar


@pytest.mark.parametrize(
    ("rows", "alpha", "rank"),
    [(9, 0.1, 9), (19, 0.1, 18), (10, 0.1, 10), (99, 0.29, 71), (4, 0.5, 3), (1, 0.5, 1), (999, 0.05, 950)],
)
def test_quantile_by_hand(rows, alpha, rank):
    """The scores are 1 to n, so that the quantile is its rank: ceil((n + 1) (1 - alpha))."""
    scores = torch.arange(1.0, rows + 1)[torch.randperm(rows)]
    assert conformal_quantile(scores, alpha) == rank
    assert conformal_quantile(torch.cat([scores, torch.tensor([torch.nan])]), alpha) == rank
    level = min(1.0, rank / rows)
    assert conformal_quantile(scores, alpha) == np.quantile(scores.numpy(), level, method="inverted_cdf")


@pytest.mark.parametrize(("rows", "alpha", "least"), [(8, 0.1, 9), (0, 0.5, 1), (98, 0.01, 99), (18, 0.05, 19)])
def test_too_few_rows_for_a_quantile(rows, alpha, least):
    with pytest.raises(ValueError, match=f"{rows} labelled rows, wanted at least {least}, which is 1 / {alpha:g} - 1"):
        conformal_quantile(torch.rand(rows), alpha)
    assert conformal_quantile(torch.arange(float(least)), alpha) == least - 1


@pytest.mark.parametrize("alpha", [0.05, 0.1, 0.3])
@pytest.mark.parametrize("kind", ["sets", "intervals"])
def test_coverage_is_what_chance_allows(kind, alpha):
    """Of m new rows those inside are beta-binomial: (n + 1) (1 - alpha) and the rest (Angelopoulos & Bates 2021)."""
    n, m = 300, 4000
    for seed in range(5):
        if kind == "sets":
            head = ClassificationHead(classes=list("abcd"), embed_dim=1)
            logits, truth = drawn(n + m, seed=seed)
            logits, target = 3 * logits[:, 0], truth[:, 0]  # far too sure: coverage holds all the same
            fitting, new = Categorical(logits[:n]), Categorical(logits[n:])
        else:
            head = RegressionHead(embed_dim=1, mean=0.0, std=1.0)
            maker = torch.Generator().manual_seed(seed)
            prediction = torch.randn(n + m, generator=maker)
            fitting, new = Scalar(prediction[:n]), Scalar(prediction[n:])
            target = prediction.exp() * torch.randn(n + m, generator=maker)
        limit = conformal_quantile(fitting.nonconformity(target[:n], head.decoding)[:, 0], alpha)
        (part,) = coverage_by_question(new.nonconformity(target[n:], head.decoding), (limit,))
        out = math.floor((n + 1) * alpha)
        low, high = betabinom(m, n + 1 - out, out).ppf([1e-4, 1 - 1e-4])
        assert low <= round(part * m) <= high
        told, size = new.prediction_sets((limit,), head.decoding, {})
        if kind == "sets":
            inside = [head.classes[t] in row["prediction_set"] for row, t in zip(told, target[n:].tolist())]
            assert size.tolist() == [len(row["prediction_set"]) for row in told]
        else:
            inside = [
                low <= t <= high
                for (low, high), t in zip((r["prediction_interval"] for r in told), target[n:].tolist())
            ]
        assert sum(inside) == pytest.approx(part * m, abs=1)  # a truth on the edge, to the last digit


def test_coverage_of_each_question():
    scores = torch.tensor([[0.1, 0.9], [0.4, torch.nan], [0.6, 0.2]])
    assert coverage_by_question(scores, (0.4, 0.5)) == pytest.approx([2 / 3, 1 / 2])
    assert coverage_by_question(scores[1:2], (0.4, 0.5)) == [1.0]
