"""Split-conformal prediction: the quantile of nonconformity scores, and the coverage of prediction sets."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def conformal_quantile(scores: Tensor, alpha: float) -> float:
    """Return the score that the score of a new row exceeds with a probability of at most alpha.

    It is the ceil((n + 1) (1 - alpha))-th smallest of the n scores (Vovk et al. 2005, Lei et al. 2018, Angelopoulos and
    Bates 2021, https://arxiv.org/abs/2107.07511). The new row must be exchangeable with the rows of these scores.

    Args:
        scores: Nonconformity scores, (N,), with NaN for unlabelled rows.
        alpha: The probability, between 0 and 1.

    Returns:
        The quantile.

    Raises:
        ValueError: If there are fewer than 1 / alpha - 1 scores.

    Example:
        >>> conformal_quantile(torch.arange(1.0, 20.0), alpha=0.1)
        18.0
    """
    scores = scores[~scores.isnan()]
    above = math.floor((len(scores) + 1) * alpha + 1e-9)  # 29 = 100 * 0.29 is 28.999999999999996
    if above < 1:
        least = min_conformal_rows(alpha)
        raise ValueError(f"{len(scores)} labelled rows, wanted at least {least}, which is 1 / {alpha:g} - 1")
    return float(scores.sort().values[len(scores) - above])


def min_conformal_rows(alpha: float) -> int:
    """Return the smallest number of scores for which `conformal_quantile` is defined."""
    return math.ceil(1 / alpha - 1 - 1e-9)


def coverage_by_question(scores: Tensor, quantiles: Sequence[float]) -> list[float]:
    """Return for each sub-target the fraction of labelled rows whose score does not exceed the quantile.

    Sub-targets without a labelled row are left out.

    Args:
        scores: Nonconformity scores of the true targets, (N, G), with NaN for unlabelled sub-targets.
        quantiles: Conformal quantile of each of the G sub-targets.
    """
    inside = (scores <= torch.tensor(quantiles, dtype=scores.dtype)).double()
    fractions = inside.masked_fill(scores.isnan(), torch.nan).nanmean(0)
    return fractions[~fractions.isnan()].tolist()
