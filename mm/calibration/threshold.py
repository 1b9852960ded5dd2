"""The score threshold of predicted objects with the best F1 on rows with known targets."""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from mm.calibration.fitting import ConfidenceFitter, Fitter
from mm.predictions import Calibration

CRITERIA = ("f1",)


def check_threshold(threshold: str | None) -> None:
    """Check the criterion by which thresholds are chosen.

    Raises:
        ValueError: If it is neither None nor one of `CRITERIA`.
    """
    if threshold is not None and threshold not in CRITERIA:
        raise ValueError(
            f"threshold: got {threshold!r}, wanted {', '.join(CRITERIA)}, or null to keep that of the head"
        )


def choose_threshold(scores: Tensor, matches: Tensor, num_targets: int) -> float:
    """Return the threshold at which the predicted objects have the best F1.

    It lies halfway between the lowest score that reaches it and the next lower score. Of thresholds with the same F1,
    the highest is returned.

    Args:
        scores: Scores of all predicted objects, (N,), in 0..1.
        matches: Whether each of them matches a true object, (N,) bool.
        num_targets: Number of true objects.

    Raises:
        ValueError: If no predicted object matches a true one.
    """
    if not matches.any():
        raise ValueError(f"none of the {len(scores)} predicted objects matches one of the {num_targets} true objects")
    ordered, order = scores.double().sort(descending=True, stable=True)
    following = torch.cat([ordered[1:], ordered.new_zeros(1)])
    count = torch.arange(1, len(ordered) + 1, dtype=torch.double)
    f1 = 2 * matches[order].double().cumsum(0) / (count + num_targets)
    f1[following == ordered] = -1  # objects with the same score are on the same side
    best = int(f1.argmax())
    return float((ordered[best] + following[best]) / 2)


def measure_threshold(scores: Tensor, matches: Tensor, num_targets: int, threshold: float) -> dict[str, float]:
    """Return precision, recall and F1 of the predicted objects that reach a threshold; 0 where they are undefined.

    Args:
        scores: Scores of all predicted objects, (N,).
        matches: Whether each of them matches a true object, (N,) bool.
        num_targets: Number of true objects.
        threshold: The threshold.
    """
    chosen = scores >= threshold
    right, count = int((matches & chosen).sum()), int(chosen.sum())
    return {
        "precision": right / max(count, 1),
        "recall": right / max(num_targets, 1),
        "f1": 2 * right / max(count + num_targets, 1),
    }


def fit_thresholds(calibrations: Mapping[str, Calibration], fitters: Mapping[str, Fitter]) -> dict[str, Calibration]:
    """Return calibrations with the threshold of each head that compares the scores of objects with one.

    Args:
        calibrations: Head name to calibration; the threshold applies to calibrated scores.
        fitters: Head name to its predictions of the rows on which the threshold is chosen.

    Raises:
        ValueError: If no calibrated head has such a threshold, or if no predicted object is right.
    """
    fitted = dict(calibrations)
    for name, calibration in calibrations.items():
        fitter = fitters[name]
        if isinstance(fitter, ConfidenceFitter) and fitter.kind.has_threshold:
            try:
                threshold = choose_threshold(*scored_objects(fitter, calibration))
            except ValueError as error:
                raise ValueError(f"threshold=f1: '{name}': {error}") from None
            fitted[name] = replace(calibration, threshold=threshold)
    if all(calibration.threshold is None for calibration in fitted.values()):
        raise ValueError("threshold=f1: no head compares the scores of objects with a threshold; leave it out")
    return fitted


def scored_objects(fitter: ConfidenceFitter, calibration: Calibration) -> tuple[Tensor, Tensor, int]:
    """Return the calibrated score of each predicted object, whether it matches, and the number of true objects.

    Args:
        fitter: Predictions of a head whose kind has a threshold.
        calibration: The calibration.
    """
    odds, matches = fitter.logits(calibration)
    return odds.flatten().sigmoid(), matches.flatten().bool(), fitter.num_targets
