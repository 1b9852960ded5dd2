"""Large numbers with small differences, against scikit-learn; states that stay float64."""

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error
from torch import nn

from mm.metrics.regression import MeanAbsoluteError, MeanSquaredError, R2Score, SpearmanCorrCoef

METRICS = {
    "mae": (MeanAbsoluteError, {}, mean_absolute_error),
    "rmse": (MeanSquaredError, {"squared": False}, root_mean_squared_error),
    "r2": (R2Score, {}, r2_score),
    "spearman": (SpearmanCorrCoef, {}, lambda truth, prediction: spearmanr(truth, prediction).statistic),
}


def draw(rng, size, base, spread):
    truth = base + rng.normal(0, spread, size)
    return truth + rng.normal(0, spread / 2, size), truth


@pytest.mark.parametrize(("base", "spread"), [(0, 1), (1.7e9, 60), (1e12, 0.5), (-1e15, 100), (0, 1e25)])
@pytest.mark.parametrize("name", METRICS)
def test_against_scikit_learn(name, base, spread) -> None:
    kind, options, reference = METRICS[name]
    metric = kind(**options)
    rng = np.random.default_rng(0)
    predictions, targets = [], []
    for size in (1, 40, 7):
        prediction, truth = draw(rng, size, base, spread)
        metric.update(torch.from_numpy(prediction), torch.from_numpy(truth))
        predictions.append(prediction)
        targets.append(truth)
    # The reference squares large numbers, too; of the differences from the base it is exact.
    wanted = reference(np.concatenate(targets) - base, np.concatenate(predictions) - base)
    assert metric.compute().item() == pytest.approx(wanted, rel=1e-4)
    assert metric.compute().dtype == torch.float64


@pytest.mark.parametrize("name", METRICS)
def test_states_stay_float64(name) -> None:
    kind, options, _ = METRICS[name]
    metric = nn.ModuleDict({"metric": kind(**options)}).to(torch.bfloat16)["metric"]
    for _ in range(2):
        metric.update(torch.tensor([1e12, 1e12 + 1], dtype=torch.float64), torch.tensor([1e12, 1e12 + 2]).double())
        assert metric.compute().dtype == torch.float64
        metric.reset()


def test_r2_over_processes_of_which_one_has_no_row() -> None:
    rng = np.random.default_rng(1)
    prediction, truth = draw(rng, 30, 1.7e9, 60)
    parts = []
    for rows in (slice(0, 11), slice(11, 11), slice(11, 30)):
        metric = R2Score()
        if len(truth[rows]):
            metric.update(torch.from_numpy(prediction[rows]), torch.from_numpy(truth[rows]))
        parts.append(metric.moments)
    metric.moments = torch.stack(parts)  # as torchmetrics gathers them
    assert metric.compute().item() == pytest.approx(r2_score(truth, prediction), rel=1e-9)


def test_r2_of_a_target_that_does_not_vary_and_of_one_row() -> None:
    metric, same = R2Score(), torch.full((3,), 7.0)
    metric.update(same, same)
    assert metric.compute() == r2_score(same, same) == 1
    metric.update(same + 1, same)
    assert metric.compute() == r2_score(same, same + 1) == 0
    metric.reset()
    metric.update(same[:1], same[:1])
    with pytest.raises(ValueError, match="two samples"):
        metric.compute()


def test_spearman_of_many_ties_and_of_what_does_not_vary() -> None:
    rng = np.random.default_rng(2)
    prediction, truth = rng.integers(0, 2, 200_000).astype(float), rng.integers(0, 3, 200_000).astype(float)
    truth[:80_000] = prediction[:80_000]
    metric = SpearmanCorrCoef()
    metric.update(torch.from_numpy(prediction), torch.from_numpy(truth))
    assert metric.compute().item() == pytest.approx(spearmanr(prediction, truth).statistic, rel=1e-9)
    metric.reset()
    metric.update(torch.arange(5.0), torch.ones(5))
    assert metric.compute() == 0
