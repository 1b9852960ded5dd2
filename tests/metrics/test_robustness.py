import math

import pytest
from sklearn.metrics import auc

from mm.metrics.robustness import area, effective, relative

SEVERITIES = [0.0, 0.5, 1.0]


def test_areas_by_hand():
    # trapezoids: (0.8 + 0.6) / 2 * 0.5 + (0.6 + 0.2) / 2 * 0.5 = 0.35 + 0.2
    assert area(SEVERITIES, [0.8, 0.6, 0.2]) == pytest.approx(0.55)
    assert relative(SEVERITIES, [0.8, 0.6, 0.2], True) == pytest.approx(0.55 / 0.8)
    assert relative(SEVERITIES, [0.7] * 3, True) == pytest.approx(1)
    # an error that doubles at once: half of the quality is kept
    assert relative([0.0, 1e-9, 1.0], [1.0, 2.0, 2.0], False) == pytest.approx(0.5)


def test_area_is_that_of_another_library():
    severities, values = [0.0, 0.1, 0.4, 0.8], [0.9, 0.85, 0.5, 0.4]
    assert area(severities, values) == pytest.approx(auc(severities, values) / 0.8)


def test_effective_by_hand():
    # beta: the baseline's curve, 0.1 higher. Differences: 0, 0.1, 0.2; area 0.025 + 0.075
    assert effective(SEVERITIES, [0.8, 0.6, 0.5], [0.7, 0.4, 0.2], True) == pytest.approx(0.1)
    assert effective(SEVERITIES, [0.8, 0.6, 0.5], [0.8, 0.6, 0.5], True) == pytest.approx(0)
    # of an error: less of it than the shifted baseline is better
    assert effective(SEVERITIES, [1.0, 1.5, 2.0], [1.0, 2.5, 4.0], False) == pytest.approx(1.0)


def test_nothing_to_divide_by():
    assert math.isnan(relative(SEVERITIES, [0.0, 0.0, 0.0], True))
    assert math.isnan(relative(SEVERITIES, [-0.1, -0.2, -0.3], True))
    assert math.isnan(relative(SEVERITIES, [0.0, 0.0, 0.0], False))
