"""The score threshold with the best F1 on validation rows, and that a calibrated model predicts with it."""

from types import SimpleNamespace

import pytest
import torch

from mm.calibration.calibrate import calibrate
from mm.calibration.fitting import ConfidenceFitter
from mm.calibration.measuring import measure_calibration
from mm.calibration.threshold import choose_threshold, fit_thresholds, measure_threshold
from mm.checkpoint.saving import calibration_fields
from mm.heads.ctc import CTCHead
from mm.heads.detection import DetectionHead
from mm.predictions import Boxes, Calibration, Transcript

HEAD = DetectionHead(classes=("cat",), input="vision", embed_dim=4)


def fitter(odds, right, targets) -> ConfidenceFitter:
    return ConfidenceFitter(HEAD, Boxes, odds, right, 2, targets)


def test_the_best_of_all_thresholds_is_chosen():
    generator = torch.Generator().manual_seed(0)
    for _ in range(50):
        scores = (torch.rand(30, generator=generator) * 20).round() / 20  # some are equal
        matches = torch.rand(30, generator=generator) < scores
        found = choose_threshold(scores, matches, 20)
        best = max(measure_threshold(scores, matches, 20, float(x))["f1"] for x in scores)
        assert measure_threshold(scores, matches, 20, found)["f1"] == pytest.approx(best)


def test_a_threshold_lies_between_two_scores():
    scores, matches = torch.tensor([0.3, 0.2, 0.1]), torch.tensor([True, True, False])
    assert choose_threshold(scores, matches, 2) == pytest.approx(0.15)
    assert measure_threshold(scores, matches, 2, 0.15) == {"precision": 1, "recall": 1, "f1": 1}
    assert measure_threshold(scores, matches, 2, 0.5) == {"precision": 0, "recall": 0, "f1": 0}
    assert choose_threshold(torch.tensor([0.3]), torch.tensor([True]), 5) == pytest.approx(0.15)
    with pytest.raises(ValueError, match="none of the 3 predicted objects matches one of the 4 true objects"):
        choose_threshold(scores, torch.zeros(3, dtype=torch.bool), 4)


def test_thresholds_apply_to_calibrated_scores():
    odds, right = [-1.0, -2.0, -3.0, -4.0], [True, True, False, False]
    calibration = Calibration(temperature=2.0, bias=1.0, exact=True)
    fitted = fit_thresholds({"target": calibration}, {"target": fitter(odds, right, 3)})["target"]
    low, high = (torch.tensor([-3.0, -2.0]) / 2 + 1).sigmoid().tolist()
    assert fitted.threshold == pytest.approx((low + high) / 2)
    numbers, _ = measure_calibration(fitter(odds, right, 3), fitted, held_out=True)
    assert numbers["f1"] == pytest.approx(0.8) and numbers["f1_uncalibrated"] == 0  # no score reaches 0.5
    assert numbers["recall"] == pytest.approx(2 / 3) and numbers["precision"] == 1
    assert "f1" not in measure_calibration(fitter(odds, right, 3), calibration, held_out=True)[0]


def test_heads_without_threshold():
    head = CTCHead(classes=["a"], input="audio", separator="", embed_dim=4)
    words = ConfidenceFitter(head, Transcript, [0.5, 0.1], [True, False], 2)
    with pytest.raises(ValueError, match="threshold=f1: no head compares the scores of objects with a threshold"):
        fit_thresholds({"target": Calibration()}, {"target": words})
    with pytest.raises(ValueError, match="threshold: got 'recall', wanted f1"):
        calibrate("nowhere", SimpleNamespace(), threshold="recall")


def test_a_calibrated_row_is_split_by_the_threshold():
    boxes = [{"label": "cat", "box": [0, 0, 1, 1], "score": score} for score in (0.4, 0.2)]
    row = {"prediction": [], "low_confidence": boxes}
    calibration = Calibration(threshold=0.3, exact=True)
    prediction = Boxes(torch.zeros(1, 1, 1), torch.zeros(1, 1), torch.zeros(1, 1, 4))
    split = calibration.revise_row(row, prediction, HEAD.decoding)
    assert [one["score"] for one in split["prediction"]] == [0.4]
    assert [one["score"] for one in split["low_confidence"]] == [0.2]
    assert Calibration().apply_threshold(HEAD.decoding) == HEAD.decoding


def test_a_threshold_is_written_only_if_it_was_chosen():
    assert "threshold" not in calibration_fields(Calibration())
    assert Calibration(**calibration_fields(Calibration(threshold=0.25))).threshold == 0.25
