"""Calibration of a trained model with rows on which it was not trained."""

import warnings
from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from mm import checkpoint
from mm.applying import count_faults, count_splits, find_device, match_data, open_model, trained_rows
from mm.calibration.fitting import (
    Fitter,
    LogitsAndTruth,
    collect_predictions,
    fit_calibrations,
    has_both,
)
from mm.calibration.measuring import measure_calibration
from mm.calibration.reliability import draw_reliability
from mm.calibration.threshold import check_threshold, fit_thresholds
from mm.checkpoint import TrainedModel
from mm.data_source import DataSource
from mm.files import whole
from mm.predictions import Calibration
from mm.reports import Report, Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(repr=False)
class CalibrationReport(Report):
    """Result of `calibrate`: the fitted calibrations, and the calibration metrics before and after.

    Attributes:
        model: The calibrated model, which shares its weights with the model that was passed.
        calibrations: Head name to calibration.
        skipped: Head name to the reason why nothing, or only a part of the calibration, was fitted.
        results: Split, or `split/head` for a model with several heads, to the metrics by name.
        metrics: The same metrics as a flat mapping, such as `test/calibration_error`, and counts of the data.
        diagrams: Name such as `test/reliability` to the logits and true classes "before" and "after" calibration.
        description: Description of the rows that were used for fitting and for measuring.
    """

    model: TrainedModel
    calibrations: dict[str, Calibration]
    skipped: dict[str, str]
    results: dict[str, dict[str, float]]
    metrics: Mapping[str, float]
    diagrams: dict[str, dict[str, LogitsAndTruth]]
    description: str

    def table(self) -> Table:
        """Return a table with one row per split and head."""
        names = list(dict.fromkeys(name for numbers in self.results.values() for name in numbers))
        rows = [[place, *(numbers.get(name) for name in names)] for place, numbers in self.results.items()]
        return Table(["", *(name.replace("_", " ") for name in names)], rows, title=f"calibrated by {self.description}")

    @property
    def figures(self) -> dict[str, "Callable[[], Figure]"]:
        """Return functions that draw the reliability diagrams before and after calibration.

        The keys are names such as `test/reliability`.
        """
        return {name: partial(draw_reliability, panels) for name, panels in self.diagrams.items()}

    def figure(self) -> "Figure":
        """Draw the reliability diagrams of all heads, of the test rows if there are any.

        Raises:
            ValueError: If no head predicts probabilities.
        """
        if not self.diagrams:
            raise ValueError("no head of this model predicts a probability, so that there is no reliability diagram")
        last = [*self.diagrams][-1].split("/")[0]
        chosen = {name: panels for name, panels in self.diagrams.items() if name.split("/")[0] == last}
        titled = {
            f"{name.removesuffix('/reliability')} {state}": pair
            for name, panels in chosen.items()
            for state, pair in panels.items()
        }
        return draw_reliability(titled)

    def save(self, folder: str | Path) -> Path:
        """Write metrics.json and an image of each reliability diagram.

        Args:
            folder: Folder of the files, which is created if it does not exist.

        Returns:
            The folder.
        """
        folder = super().save(folder)
        for name, draw in self.figures.items():
            with warnings.catch_warnings(), whole(folder / f"{name.replace('/', '_')}.png") as part:
                warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)  # drawn as an empty box
                draw().savefig(part, dpi=120, format="png")
        return folder

    def update_directory(self, path: str | Path) -> None:
        """Write the calibration into a model directory; an existing calibration is replaced.

        Args:
            path: The model directory that the model was loaded from, or a copy of it.
        """
        checkpoint.save_calibration(Path(path), self.calibrations, self.summary())

    def summary(self) -> str:
        """Return a sentence about the calibration for the model card."""
        several = len(self.model.model.heads) > 1
        parts = []
        for name, calibration in self.calibrations.items():
            places = [place for place in self.results if not several or place.split("/", 1)[1] == name]
            numbers = self.results[places[-1]]
            part = f"{name}: temperature {calibration.temperature:.4g}"
            part += f", bias {calibration.bias:.4g}" if calibration.bias else ""
            if calibration.threshold is not None:
                part += f", score threshold {calibration.threshold:.4g} (F1 {numbers['f1']:.4f})"
            if "calibration_error" in numbers:
                before, after = numbers["calibration_error_uncalibrated"], numbers["calibration_error"]
                part += f", calibration error {before:.4f} before, {after:.4f} after"
            if calibration.alpha is not None:
                part += f", sets or intervals that hold the truth of {1 - calibration.alpha:.0%}"
                part += f" (measured {numbers['coverage']:.4f})" if "coverage" in numbers else ""
            parts.append(part)
        return f"by {self.description}; {'; '.join(parts)}."


def calibrate(
    model: TrainedModel | str | Path,
    data: DataSource,
    alpha: float | None = None,
    split: str = "val",
    seed: int = 0,
    device: str | torch.device = "auto",
    rows_description: str | None = None,
    inplace: bool = False,
    threshold: str | None = None,
) -> CalibrationReport:
    """Fit the calibration of a trained model, and optionally conformal prediction sets, on rows it was not trained on.

    Heads that predict classes, labels, tags or spans get a temperature (Guo et al. 2017). Heads that predict texts,
    transcripts or boxes get a temperature and a bias (Platt 1999). With `alpha`, heads that support prediction sets or
    intervals also get these (split-conformal prediction): on new rows at most this fraction of the sets does not
    contain the true value. For such heads with a temperature, a random half of the labelled rows is used to fit the
    temperature and the other half to fit the sets. Test rows are not used for fitting; the metrics are measured on
    them.

    Predictions do not change, except for labels and boxes that are selected by comparing a threshold with their
    calibrated probability. With `threshold="f1"`, the threshold of boxes is the one with the best F1 on these rows; the
    calibrated model predicts with it in place of the head's `score_threshold`.

    Args:
        model: A trained model, or the path of its directory.
        data: The rows, with targets.
        alpha: Fraction of new rows whose prediction set may miss the true value, between 0 and 1; None: no prediction
            sets. It needs 1 / alpha - 1 labelled rows, and twice as many for heads that also get a temperature.
        split: `val` for the validation rows, or `all` for all rows of data that the model has never seen.
        seed: Random seed of the division into halves.
        device: `auto` for the accelerator if there is one, or a torch device.
        rows_description: Name of these rows in the report and the model card. By default it consists of their split and
            source.
        inplace: Whether to calibrate `model` itself. By default it stays unchanged.
        threshold: `f1` to choose the score threshold of heads that predict boxes; None: that of the head is kept.

    Returns:
        The report, whose `model` is calibrated.

    Raises:
        ValueError: If a setting is invalid, if there are no rows for fitting, if the model was trained on some of them,
            or if no head can be calibrated.

    Example:
        report = calibrate("outputs/first/model", data, alpha=0.1)
        report.metrics["test/calibration_error"]
        report.model.predict({"text": "what a day"})["label"]["prediction_set"]
        report.update_directory("outputs/first/model")
    """
    check_split(split)
    check_threshold(threshold)
    check_alpha(alpha)
    loaded = open_model(model)
    if not len(loaded.model.heads):
        raise ValueError(f"{loaded.path}: this model predicts nothing: it has no head whose confidence could be true")
    data = match_data(loaded, data, labelled=True)
    splits = find_splits(data, split)
    for name in splits.values():
        check_unseen(loaded, data, name)
    uncalibrated = copy(loaded.model)  # a shallow copy, which shares its modules
    uncalibrated.calibration = {}
    device_before = next(uncalibrated.parameters()).device
    uncalibrated.to(find_device(device))
    try:
        fitters = {place: collect_predictions(uncalibrated, data, name) for place, name in splits.items()}
    finally:
        uncalibrated.to(device_before)
    calibrations, skipped = fit_calibrations(uncalibrated, fitters["val"], alpha, seed)
    if threshold is not None:
        calibrations = fit_thresholds(calibrations, fitters["val"])

    results, diagrams = measure_all(fitters, calibrations, several=len(loaded.model.heads) > 1)
    described = rows_description or f"{'validation rows' if split == 'val' else 'rows'} of {data.source}"
    description = f"{len(data.rows(splits['val']))} {described}"
    description += "; the checkpoint may have been chosen by the same rows" if split == "val" else ""
    description += describe_use(fitters["val"], "test" in splits, alpha, seed)
    if inplace:
        loaded.model.calibration = calibrations
    else:
        uncalibrated.calibration = calibrations
        loaded = replace(loaded, model=uncalibrated)
    metrics = {f"{place}/{name}": value for place, numbers in results.items() for name, value in numbers.items()}
    metrics |= count_faults(data)
    return CalibrationReport(loaded, calibrations, skipped, results, metrics, diagrams, description)


def measure_all(
    fitters: Mapping[str, Mapping[str, Fitter]], calibrations: Mapping[str, Calibration], several: bool
) -> tuple[dict[str, dict[str, float]], dict[str, dict[str, LogitsAndTruth]]]:
    """Measure the calibration of every head on every split.

    Args:
        fitters: Split (`val`, and `test` if it exists) to head name to the collected predictions.
        calibrations: Head name to the calibration that was fitted on `val`.
        several: Whether the model has several heads, so that the results are named by head.

    Returns:
        The results and the diagrams of a `CalibrationReport`.
    """
    results: dict[str, dict[str, float]] = {}
    diagrams: dict[str, dict[str, LogitsAndTruth]] = {}
    for head, calibration in calibrations.items():
        for split, by_head in fitters.items():
            numbers, pairs = measure_calibration(by_head[head], calibration, held_out=split == "test")
            place = f"{split}/{head}" if several else split
            if numbers:
                results[place] = numbers
            if pairs:
                diagrams[f"{place}/reliability"] = pairs
    return results, diagrams


def check_split(split: str) -> None:
    """Check the name of the split for the calibration.

    Raises:
        ValueError: If it is neither "val" nor "all".
    """
    if split not in ("val", "all"):
        raise ValueError(f"split: got '{split}', wanted val, or all for a file that the model never saw")


def find_splits(data: DataSource, split: str) -> dict[str, str]:
    """Return the splits of the data for fitting and for measuring.

    Args:
        data: The data.
        split: `val` or `all`, as in `calibrate`.

    Returns:
        "val" to the split on which the calibration is fitted, and, if there are test rows, "test" to their split.

    Raises:
        ValueError: If there are no rows for fitting, or if `all` includes training rows.
    """
    source, counts = data.source, count_splits(data)
    listed = ", ".join(f"{name} {count}" for name, count in counts.items())
    if split == "all":
        if counts["train"]:
            raise ValueError(
                f"split=all: {source} names training rows ({listed}), of which a model is surer than of others; leave "
                "split=all out, or give a file that the model never saw"
            )
        return {"val": "all"}
    if not counts["val"]:
        raise ValueError(
            f"{source}: has no validation rows ({listed}); name some in its split column, set datamodule.split.val "
            "above 0 as in training, or say split=all of a file that the model never saw"
        )
    return {"val": "val", "test": "test"} if counts["test"] else {"val": "val"}


def check_unseen(model: TrainedModel, data: DataSource, split: str) -> None:
    """Check that a model was not trained on the rows of a split.

    Raises:
        ValueError: If it was trained on some of them, for example because rows were added to a file that is split at
            random; the message names the first such row.
    """
    count, first = trained_rows(model, data, split)
    if count:
        fix = "has the file changed, so that its splits are drawn anew? Bring it back as it was, or name its column of "
        fix += "splits with datamodule.columns.split"
        if split == "all":
            fix = "leave them out of the file (pictures and sounds count by their relative path and size)"
        raise ValueError(
            f"{data.source}: {count} of its {len(data.rows(split))} rows of the split '{split}' were "
            f"trained on, the first: {first}; {fix}"
        )


def check_alpha(alpha: object) -> None:
    """Check the fraction of new rows whose prediction set may miss the true value.

    Args:
        alpha: The fraction; None: no prediction sets.

    Raises:
        ValueError: If it is not a number between 0 and 1.
    """
    if alpha is not None and (not isinstance(alpha, int | float) or not 0 < alpha < 1):
        raise ValueError(
            f"alpha: got {alpha}, wanted a fraction of the rows between 0 and 1, such as 0.1; without it there are no "
            "prediction sets"
        )


def describe_use(fitters: Mapping[str, Fitter], tested: bool, alpha: float | None, seed: int) -> str:
    """Return a description of the use of the rows, as the end of a sentence.

    Args:
        fitters: Head name to the collected predictions of the rows that were used for fitting.
        tested: Whether there are test rows.
        alpha: As in `calibrate`.
        seed: As in `calibrate`.
    """
    text = ""
    if alpha is not None:
        halved = [f"'{name}'" for name, fitter in fitters.items() if has_both(fitter.kind)]
        if halved:
            text += f"; a random half of the labelled rows (seed={seed}) fitted the temperature of {', '.join(halved)}"
            text += ", and the other half the sets"
    if tested:
        return f"{text}; figures are of the test rows, which fitted nothing"
    return f"{text}; figures are of the same rows, there being no test rows: they flatter"
