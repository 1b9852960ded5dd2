"""Calibration errors beside torchmetrics' and scikit-learn's, and the diagram."""

import numpy as np
import pytest
import torch
from planted_logits import drawn
from sklearn.metrics import log_loss
from torchmetrics.classification import BinaryCalibrationError, MulticlassCalibrationError

from mm.calibration.reliability import calibration_error, draw_reliability
from mm.calibration.temperature import negative_log_likelihood
from mm.types import IGNORE


def test_errors_are_torchmetrics_and_scikit_learn_s():
    logits, truth = drawn(400, seed=1)
    p = (3 * logits[:, 0]).softmax(-1)
    theirs = MulticlassCalibrationError(num_classes=4)(p, truth[:, 0])
    assert calibration_error(3 * logits, truth) == pytest.approx(float(theirs), abs=1e-6)
    assert negative_log_likelihood(logits, truth) == pytest.approx(
        log_loss(truth[:, 0], logits[:, 0].double().softmax(-1), labels=range(4)), rel=1e-6
    )
    yes, told = torch.randn(400, 3, 1), torch.randint(2, (400, 3))
    told[:100, 0] = IGNORE
    each = [BinaryCalibrationError(ignore_index=IGNORE)(yes[:, g, 0].sigmoid(), told[:, g]) for g in range(3)]
    assert calibration_error(yes, told) == pytest.approx(float(torch.stack(each).mean()), abs=1e-6)


def test_calibration_error_by_hand():
    """Four rows say 0.9 and two are right, one says 0.6 and is: (4 * 0.4 + 1 * 0.4) / 5."""
    logits = torch.tensor([[9.0, 1.0]] * 4 + [[6.0, 4.0]]).log().unsqueeze(1)
    truth = torch.tensor([[0], [0], [1], [1], [0]])
    assert calibration_error(logits, truth) == pytest.approx((4 * 0.4 + 0.4) / 5)


def test_the_diagram_shows_what_is_right_in_each_bin():
    logits = torch.tensor([[9.0, 1.0]] * 4 + [[6.0, 4.0]]).log().unsqueeze(1)
    truth = torch.tensor([[0], [0], [1], [1], [0]])
    drawing = draw_reliability({"before": (logits, truth), "after": (logits / 2, truth)})
    upper, _, lower, _ = drawing.axes
    assert [axes.get_title() for axes in drawing.axes[:2]] == ["before", "after"]
    bars = [(bar.get_x(), bar.get_height()) for bar in upper.containers[0]]
    np.testing.assert_allclose(bars, [(9 / 15, 1.0), (13 / 15, 0.5)])  # 0.6 begins the tenth of the 15 bins
    np.testing.assert_allclose([bar.get_height() for bar in upper.containers[1]], [-0.4, 0.4], atol=1e-6)
    assert [round(bar.get_height(), 3) for bar in lower.containers[0] if bar.get_height()] == [0.2, 0.8]
