"""What a model keeps of a metric while its input gets worse: one number for a curve over severity.

All areas are by the trapezoidal rule, divided by the span of the severities: the mean height of the curve.
"""

import math
from collections.abc import Sequence

import numpy as np


def area(severities: Sequence[float], values: Sequence[float]) -> float:
    """The mean height of a curve over its severities; MultiBench's robustness (Liang 2021) where they are 0 to 1."""
    return float(np.trapezoid(values, severities)) / (severities[-1] - severities[0])


def relative(severities: Sequence[float], values: Sequence[float], higher_is_better: bool) -> float:
    """area(m) / m(0), the part of the metric that is kept: 1 where nothing is lost; of an error, m(0) / area(m).

    Liang 2021's area, divided by the value at severity 0, so that models of unlike accuracy compare; Taori 2020's
    relative robustness is a difference of accuracies, not this. NaN where the divisor is not above zero.
    """
    over, under = area(severities, values), values[0]
    if not higher_is_better:
        over, under = under, over
    return over / under if under > 0 else math.nan


def effective(
    severities: Sequence[float], values: Sequence[float], baseline: Sequence[float], higher_is_better: bool
) -> float:
    """area(m - beta), with beta(s) = b(s) + m(0) - b(0): what is kept beyond a baseline as good on clean input.

    Taori 2020 fits beta, from the clean to the corrupted metric, to many baselines. Of one, only its point is known; as
    in MultiBench (Liang 2021) the slope is taken as 1: the baseline's curve, shifted to begin where the model's does.
    MultiBench adds the differences up, this is their mean. Of an error the sign is turned: above 0 is more robust.
    """
    beta = np.asarray(baseline) + values[0] - baseline[0]
    found = area(severities, (np.asarray(values) - beta).tolist())
    return found if higher_is_better else -found
