"""Calibrate a trained model by rows that it was not trained on."""

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
    measure_calibration,
)
from mm.calibration.reliability import draw_reliability
from mm.checkpoint import TrainedModel
from mm.data_source import DataSource
from mm.files import whole
from mm.predictions import Calibration
from mm.reports import Report, Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(repr=False)
class CalibrationReport(Report):
    """What `calibrate` has fitted, and how well calibrated the model was before and is now.

    Attributes:
        model: The calibrated model. It shares its weights with the model that was given.
        calibrations: Head name to what was fitted.
        skipped: Head name to why nothing, or only a part, was fitted.
        results: Split, or `split/head` where the model has several heads, to name to number.
        metrics: The same as a flat mapping, such as `test/calibration_error`, and counts of the data.
        diagrams: Such as `test/reliability`, to the logits and truth before and after.
        description: Which rows were used for what.
    """

    model: TrainedModel
    calibrations: dict[str, Calibration]
    skipped: dict[str, str]
    results: dict[str, dict[str, float]]
    metrics: Mapping[str, float]
    diagrams: dict[str, dict[str, LogitsAndTruth]]
    description: str

    def table(self) -> Table:
        """Return a row for each split and head."""
        names = list(dict.fromkeys(name for numbers in self.results.values() for name in numbers))
        rows = [[place, *(numbers.get(name) for name in names)] for place, numbers in self.results.items()]
        return Table(["", *(name.replace("_", " ") for name in names)], rows, title=f"calibrated by {self.description}")

    @property
    def figures(self) -> dict[str, "Callable[[], Figure]"]:
        """Name, such as `test/reliability`, to a function that draws the reliability diagrams before and after."""
        return {name: partial(draw_reliability, panels) for name, panels in self.diagrams.items()}

    def figure(self) -> "Figure":
        """Draw the reliability diagrams of all heads, of the test rows where there are some.

        Raises:
            ValueError: If no head predicts a probability.
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
        """Write metrics.json and a picture of each reliability diagram into a folder.

        Args:
            folder: Where the files are written; it is created where it does not exist.

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
        """Write the calibration into a model directory, in place of one that it has.

        Args:
            path: The directory that the model was loaded from, or a copy of it.
        """
        checkpoint.save_calibration(Path(path), self.calibrations, self.summary())

    def summary(self) -> str:
        """Return the line of the model card."""
        several = len(self.model.model.heads) > 1
        parts = []
        for name, calibration in self.calibrations.items():
            places = [place for place in self.results if not several or place.split("/", 1)[1] == name]
            numbers = self.results[places[-1]]
            part = f"{name}: temperature {calibration.temperature:.4g}"
            part += f", bias {calibration.bias:.4g}" if calibration.bias else ""
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
) -> CalibrationReport:
    """Fit temperatures, and conformal sets, to rows that a model was not trained on.

    Heads of classes, labels and tags get a temperature (Guo et al. 2017), heads that write get a temperature and a bias
    (Platt 1999). With `alpha`, heads that have sets or intervals get those that miss the truth of at most that fraction
    of new rows (split-conformal prediction); a random half of the labelled rows then fits the temperatures and the
    other half the sets. What is predicted does not change. The test rows fit nothing, and are measured.

    Args:
        model: A trained model, or the path of its directory.
        data: The rows, with targets.
        alpha: The fraction of new rows whose truth the sets may miss, between 0 and 1; None for no sets. It needs
            2 * (1 / alpha - 1) labelled rows.
        split: `val`, as in training, or `all` for data that the model never saw, all of whose rows then are used.
        seed: Decides the halves.
        device: `auto` for the accelerator where there is one, or a torch device.
        rows_description: What the report and the model card call these rows; by default their split and source.
        inplace: Whether `model` itself gets the calibration. By default it stays as it is.

    Returns:
        A report, whose `model` is calibrated.

    Raises:
        ValueError: If a setting is none of its values, the data has no rows to fit, the model was trained on some of
            them, or no head can be calibrated.

    Example:
        report = calibrate("outputs/first/model", data, alpha=0.1)
        report.metrics["test/calibration_error"]
        report.model.predict({"text": "what a day"})["label"]["prediction_set"]
        report.update_directory("outputs/first/model")
    """
    check_split(split)
    if alpha is not None and (type(alpha) not in (int, float) or not 0 < alpha < 1):
        raise ValueError(f"alpha: got {alpha}, wanted a fraction of the rows between 0 and 1, such as 0.1, or None")
    loaded = open_model(model)
    if not len(loaded.model.heads):
        raise ValueError(f"{loaded.path}: this model predicts nothing: it has no head whose confidence could be true")
    data = match_data(loaded, data, labelled=True)
    splits = find_splits(data, split)
    for name in splits.values():
        check_unseen(loaded, data, name)
    uncalibrated = copy(loaded.model)  # which shares its modules
    uncalibrated.calibration = {}
    device_before = next(uncalibrated.parameters()).device
    uncalibrated.to(find_device(device))
    try:
        fitters = {place: collect_predictions(uncalibrated, data, name) for place, name in splits.items()}
    finally:
        uncalibrated.to(device_before)
    calibrations, skipped = fit_calibrations(uncalibrated, fitters["val"], alpha, seed)

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
    """Measure every head on every split.

    Args:
        fitters: Split (`val`, and `test` where there is one) to head name to its predictions.
        calibrations: Head name to what was fitted to `val`.
        several: Whether the model has several heads, which then are named.

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
    """Check the name of the rows to calibrate by.

    Raises:
        ValueError: If it is neither val nor all.
    """
    if split not in ("val", "all"):
        raise ValueError(f"split: got '{split}', wanted val, or all for a file that the model never saw")


def find_splits(data: DataSource, split: str) -> dict[str, str]:
    """Find the rows to fit, and, where there are any, those to measure.

    Args:
        data: The data.
        split: `val` or `all`, as in `calibrate`.

    Returns:
        "val", the rows to fit, and perhaps "test", to the split of the data that they are.

    Raises:
        ValueError: If there are no rows to fit, or some that a model was trained on.
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
        ValueError: If it was, as where rows have been added to a file whose splits are drawn anew; it names the first.
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


def describe_use(fitters: Mapping[str, Fitter], tested: bool, alpha: float | None, seed: int) -> str:
    """Return which rows were used for what, as the end of a sentence.

    Args:
        fitters: Head name to its predictions of the rows that were fitted.
        tested: Whether there were test rows.
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
