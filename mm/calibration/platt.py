"""Platt scaling of log-odds."""

from typing import Any

import numpy as np
import torch
from torch import Tensor


def fit_platt(odds: Tensor, right: Tensor) -> tuple[float, float]:
    """Fit a temperature and a bias such that `odds / temperature + bias` are calibrated log-odds.

    The fit uses the smoothed targets of Platt 1999: (rights + 1) / (rights + 2) for right predictions and 1 / (wrongs +
    2) for wrong ones, where rights and wrongs are the numbers of right and wrong predictions.

    Args:
        odds: Log-odds that a prediction is right, (N,).
        right: 1 if the prediction is right, else 0, (N,).

    Returns:
        The temperature, which is positive, and the bias.

    Raises:
        ValueError: If all predictions are right, if all are wrong, or if predictions with higher log-odds are not right
            more often.
    """
    from sklearn.linear_model import LogisticRegression  # slow to import, and seldom needed

    count, rights = len(right), int(right.sum())
    if rights in (0, count):
        state = "right" if rights else "wrong"
        raise ValueError(f"all {count} of the predictions are {state}, wanted some that are not; give more rows")
    high, low = (rights + 1) / (rights + 2), 1 / (count - rights + 2)
    target = torch.where(right.bool(), high, low).numpy()
    # Each row is used twice: as right, weighted by its target, and as wrong, weighted by 1 minus its target.
    model: Any = LogisticRegression(C=np.inf, max_iter=1000, tol=1e-8)
    weights = np.concatenate([target, 1 - target])
    scale = max(1.0, float(odds.abs().max()) / 14)  # the solver is slow for the large log-odds of long texts
    model.fit((odds.double() / scale).repeat(2).view(-1, 1).numpy(), np.repeat([1, 0], count), sample_weight=weights)
    slope, bias = float(model.coef_[0, 0]), float(model.intercept_[0])
    if slope <= 1e-3:
        raise ValueError(
            f"of {count} predictions, the more probable ones are not right more often: no calibration fits them"
        )
    return scale / slope, bias
