"""Measure the calibration of a head on rows with known truth."""

import torch

from mm.calibration.conformal import coverage_by_question
from mm.calibration.fitting import ConfidenceFitter, Fitter, LogitFitter, LogitsAndTruth
from mm.calibration.reliability import calibration_error
from mm.calibration.temperature import negative_log_likelihood
from mm.calibration.threshold import measure_threshold, scored_objects
from mm.predictions import Calibration


def measure_calibration(
    fitter: Fitter, calibration: Calibration, held_out: bool
) -> tuple[dict[str, float], dict[str, LogitsAndTruth]]:
    """Measure the calibration error, the likelihood and the coverage of a head.

    Args:
        fitter: Collected predictions of the head.
        calibration: Calibration of the head.
        held_out: Whether the calibration was fitted on other rows; otherwise the coverage is not measured.

    Returns:
        The metrics by name, and the logits and true classes "before" and "after" calibration. Both are empty if no row
        is labelled.
    """
    numbers: dict[str, float] = {"rows": fitter.rows}
    pairs: dict[str, LogitsAndTruth] = {}
    if not numbers["rows"]:
        return {}, {}
    if isinstance(fitter, ConfidenceFitter):
        numbers |= {"temperature": calibration.temperature, "bias": calibration.bias, "n_events": len(fitter.odds)}
    elif fitter.kind.calibration == "temperature":
        numbers["temperature"] = calibration.temperature
    if fitter.kind.calibration == "temperature" or (isinstance(fitter, ConfidenceFitter) and fitter.odds):
        pairs = {"before": fitter.logits(Calibration()), "after": fitter.logits(calibration)}
        for suffix, pair in (("_uncalibrated", pairs["before"]), ("", pairs["after"])):
            numbers[f"calibration_error{suffix}"] = calibration_error(*pair)
            numbers[f"nll{suffix}"] = negative_log_likelihood(*pair)
    if isinstance(fitter, ConfidenceFitter) and calibration.threshold is not None:
        numbers["threshold"] = calibration.threshold
        usual = fitter.head.decoding.threshold
        for suffix, fitted, threshold in (
            ("_uncalibrated", Calibration(), usual),
            ("", calibration, calibration.threshold),
        ):
            measured = measure_threshold(*scored_objects(fitter, fitted), threshold)
            numbers |= {f"{name}{suffix}": value for name, value in measured.items()}
    if held_out and isinstance(fitter, LogitFitter) and calibration.quantiles and calibration.alpha is not None:
        numbers |= measure_sets(fitter, calibration, calibration.alpha)
    return numbers, pairs


def measure_sets(fitter: LogitFitter, calibration: Calibration, alpha: float) -> dict[str, float]:
    """Measure the fraction of prediction sets or intervals that contain the true value, and their mean size.

    Args:
        fitter: Collected predictions of rows on which the calibration was not fitted.
        calibration: Calibration with quantiles.
        alpha: Fraction of rows whose prediction set may miss the true value, as in the calibration.
    """
    fractions = coverage_by_question(fitter.nonconformity(calibration.temperature), calibration.quantiles)
    batches, decoding = fitter.tempered(calibration.temperature), fitter.head.decoding
    sets = [prediction.prediction_sets(calibration.quantiles, decoding, meta) for prediction, _, meta in batches]
    kind = next(iter(sets[0][0][0])).removeprefix("prediction_")  # set or interval
    numbers = {"coverage": sum(fractions) / len(fractions), "target_coverage": 1 - alpha}
    numbers |= {"min_class_coverage": min(fractions)} if len(fractions) > 1 else {}
    numbers[f"mean_{kind}_size"] = float(torch.cat([size.double() for _, size in sets]).mean())
    return numbers
