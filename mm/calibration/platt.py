"""Platt scaling of log-odds."""

from typing import Any

import numpy as np
import torch
from torch import Tensor


def fit_platt(odds: Tensor, right: Tensor) -> tuple[float, float]:
    """Fit the temperature and the bias of log-odds, so that `odds / temperature + bias` are calibrated.

    The targets are those of Platt 1999, as if one more of each kind had been seen: (rights + 1) / (rights + 2) where it
    is right, and 1 / (wrongs + 2) where it is wrong.

    Args:
        odds: (N,) log-odds that something is right.
        right: (N,) 1 where it is right, else 0.

    Returns:
        The temperature, above 0, and the bias.

    Raises:
        ValueError: If all are right, or none, or those of higher odds are not right more often.
    """
    from sklearn.linear_model import LogisticRegression  # slow to import, and seldom needed

    count, rights = len(right), int(right.sum())
    if rights in (0, count):
        state = "right" if rights else "wrong"
        raise ValueError(f"all {count} of the predictions are {state}, wanted some that are not; give more rows")
    high, low = (rights + 1) / (rights + 2), 1 / (count - rights + 2)
    target = torch.where(right.bool(), high, low).numpy()
    # Each row twice: as right, weighted by its target, and as wrong, weighted by the rest.
    model: Any = LogisticRegression(C=np.inf, max_iter=1000, tol=1e-8)
    weights = np.concatenate([target, 1 - target])
    scale = max(1.0, float(odds.abs().max()) / 14)  # long texts have log-odds of hundreds, which the solver is slow on
    model.fit((odds.double() / scale).repeat(2).view(-1, 1).numpy(), np.repeat([1, 0], count), sample_weight=weights)
    slope, bias = float(model.coef_[0, 0]), float(model.intercept_[0])
    if slope <= 1e-3:
        raise ValueError(
            f"of {count} predictions, the more probable ones are not right more often: no calibration fits them"
        )
    return scale / slope, bias
