"""Summarise the curve of a metric over the severity of a corruption by one number.

All areas are computed by the trapezoidal rule and divided by the range of the severities, so that they are the mean
height of the curve. In the formulas, m(s) is the metric of the model at severity s.
"""

import math
from collections.abc import Sequence

import numpy as np


def area(severities: Sequence[float], values: Sequence[float]) -> float:
    """Return the mean height of a curve over its severities.

    For severities from 0 to 1 it is the robustness of MultiBench (Liang et al. 2021).

    Args:
        severities: Severities, in increasing order.
        values: The metric at each severity.
    """
    return float(np.trapezoid(values, severities)) / (severities[-1] - severities[0])


def relative(severities: Sequence[float], values: Sequence[float], higher_is_better: bool) -> float:
    """Return the fraction of the metric that remains under corruption: area(m) / m(0), or m(0) / area(m) for an error.

    It is 1 if corruption does not change the metric. It is the area of Liang et al. (2021), divided by the value at
    severity 0, so that models of different accuracy can be compared. The relative robustness of Taori et al. (2020)
    differs, because it is a difference of accuracies.

    Args:
        severities: Severities, in increasing order, beginning with 0.
        values: The metric at each severity.
        higher_is_better: Whether the metric is a score; False: it is an error.

    Returns:
        The fraction; NaN if the divisor is not positive.
    """
    over, under = area(severities, values), values[0]
    if not higher_is_better:
        over, under = under, over
    return over / under if under > 0 else math.nan


def effective(
    severities: Sequence[float], values: Sequence[float], baseline: Sequence[float], higher_is_better: bool
) -> float:
    """Return area(m - beta), the robustness beyond a baseline that is as good as the model without corruption.

    In the formula, beta(s) = b(s) + m(0) - b(0), for the metric b of the baseline. Taori et al. (2020) fit beta, a
    function from the clean to the corrupted metric, to many baselines. With a single baseline only one point is known,
    so the slope is taken as 1, as in MultiBench (Liang et al. 2021). MultiBench sums the differences; this function
    averages them.

    Args:
        severities: Severities, in increasing order, beginning with 0.
        values: The metric of the model at each severity.
        baseline: The metric of the baseline at each severity.
        higher_is_better: Whether the metric is a score; False: it is an error, and the sign is changed, so that a
            positive result always means more robust.
    """
    beta = np.asarray(baseline) + values[0] - baseline[0]
    found = area(severities, (np.asarray(values) - beta).tolist())
    return found if higher_is_better else -found
