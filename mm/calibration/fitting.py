"""Fit the calibration of each head to rows with known truth, and measure it on others."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import Tensor
from torch.nn.functional import pad
from tqdm import tqdm

from mm._compat.torch import tree_map_only
from mm.calibration.conformal import conformal_quantile, coverage_by_question, min_conformal_rows
from mm.calibration.platt import fit_platt
from mm.calibration.reliability import calibration_error
from mm.calibration.temperature import IMPOSSIBLE_LOGIT, fit_temperature, negative_log_likelihood
from mm.checkpoint import to_device
from mm.data_source import DataSource
from mm.model import MultimodalModel
from mm.predictions import Calibration, Prediction
from mm.tensors import labelled, pick
from mm.types import Head
from mm.windows import MergedOutput

LogitsAndTruth = tuple[Tensor, Tensor]  # (N, G, C) and (N, G), as in mm/calibration/temperature.py


@dataclass
class LogitFitter:
    """Uncalibrated predictions of a head with logits, and the truth, of some rows.

    Args:
        head: A head.
        kind: The type of its predictions, which has a temperature, sets or both.
        batches: Prediction, target and meta of each batch.
    """

    head: Head
    kind: type[Prediction]
    batches: list[tuple[Prediction, Tensor, dict[str, Tensor]]]

    def add(self, name: str, merged: MergedOutput, data: DataSource) -> None:
        """Add the rows of one batch; `name` is the head's."""
        batch = merged.predictions[name], merged.targets[name], merged.meta
        self.batches.append(tree_map_only(Tensor, Tensor.cpu, batch))

    @property
    def rows(self) -> int:
        """The number of labelled rows."""
        return sum(int(labelled(target).sum()) for _, target, _ in self.batches)

    def fit(self) -> Calibration:
        """Fit a temperature.

        Raises:
            ValueError: If no temperature is best, or no row is labelled.
        """
        return Calibration(temperature=fit_temperature(*self.logits(Calibration())))

    def tempered(self, temperature: float) -> Iterator[tuple[Prediction, Tensor, dict[str, Tensor]]]:
        """Yield the predictions at a temperature, targets and meta of the labelled rows, batch by batch."""
        for prediction, target, meta in self.batches:
            rows = labelled(target)
            if rows.any():
                prediction, target, meta = pick((prediction, target, meta), rows)
                yield prediction if temperature == 1 else prediction.temper(temperature), target, meta

    def logits(self, calibration: Calibration) -> LogitsAndTruth:
        """Return logits at a calibration's temperature, and the truth, of the labelled rows.

        Rows with fewer choices than others are padded with choices that can't be chosen.

        Raises:
            ValueError: If no row is labelled.
        """
        batches = [prediction.events(target) for prediction, target, _ in self.tempered(calibration.temperature)]
        if not batches:
            raise ValueError(self.no_label_message())
        width = max(logits.shape[-1] for logits, _ in batches)
        fill = 10 * IMPOSSIBLE_LOGIT
        logits = torch.cat([pad(x, (0, width - x.shape[-1]), value=fill) for x, _ in batches])
        return logits, torch.cat([truth for _, truth in batches])

    def nonconformity(self, temperature: float) -> Tensor:
        """Return the nonconformity of the truth, (N, G), NaN where a question is unlabelled.

        Raises:
            ValueError: If no row is labelled.
        """
        batches, decoding = self.tempered(temperature), self.head.decoding
        scores = [prediction.nonconformity(target, decoding) for prediction, target, _ in batches]
        if not scores:
            raise ValueError(self.no_label_message())
        return torch.cat(scores)

    def halves(self, seed: int) -> tuple["LogitFitter", "LogitFitter"]:
        """Divide the labelled rows into two random halves.

        Args:
            seed: Decides which row is in which half, together with how many labelled rows there are; neither the size
                of the batches nor their order matters, as long as rows keep their order.

        Returns:
            Two fitters that have no row in common; of an odd number of rows the first has one more.
        """
        batches = list(self.tempered(1))
        count = sum(len(target) for _, target, _ in batches)
        chosen = torch.zeros(count, dtype=torch.bool)
        generator = torch.Generator().manual_seed(seed)
        chosen[torch.randperm(count, generator=generator)[: (count + 1) // 2]] = True
        first, second = (LogitFitter(self.head, self.kind, []) for _ in range(2))
        masks = chosen.split([len(target) for _, target, _ in batches])
        for batch, mask in zip(batches, masks, strict=True):
            for half, rows in ((first, mask), (second, ~mask)):
                if rows.any():
                    half.batches.append(pick(batch, rows))
        return first, second

    def no_label_message(self) -> str:
        """Return the message about rows of which none is labelled."""
        return f"none of its {sum(len(target) for _, target, _ in self.batches)} rows has a label"


@dataclass
class ConfidenceFitter:
    """Log-odds of the answers of a head, and whether they are right, of some rows.

    Args:
        head: The head.
        kind: The type of its predictions, whose answers have a confidence.
        odds: Log-odds of every answer.
        right: Whether it is right.
        rows: The number of labelled rows.
    """

    head: Head
    kind: type[Prediction]
    odds: list[float]
    right: list[bool]
    rows: int = 0

    def add(self, name: str, merged: MergedOutput, data: DataSource) -> None:
        """Add the rows of one batch; `name` is the head's."""
        rows = (labelled(merged.targets[name]) & (merged.row >= 0)).nonzero().flatten()
        meta = {key: x[rows] for key, x in merged.meta.items()}
        prediction = pick(merged.predictions[name], rows)
        answers = self.head.decode(prediction, pick(merged.fused, rows), meta)
        truth = [data.truth(name, row) for row in merged.row[rows].tolist()]
        odds, right = prediction.confidences(answers, truth, self.head.decoding)
        self.odds += odds
        self.right += right
        self.rows += len(rows)

    def fit(self) -> Calibration:
        """Fit a temperature and a bias of the log-odds.

        Raises:
            ValueError: If there is no answer, or Platt scaling fails.
        """
        if not self.odds:
            raise ValueError(f"nothing is predicted for its {self.rows} labelled rows")
        odds, right = self.logits(Calibration())
        temperature, bias = fit_platt(odds.flatten(), right.flatten())
        return Calibration(temperature=temperature, bias=bias, exact=True)

    def logits(self, calibration: Calibration) -> LogitsAndTruth:
        """Return the calibrated log-odds (N, 1, 1) of every answer, and whether it is right (N, 1)."""
        odds = torch.tensor(self.odds, dtype=torch.double)
        odds = odds / calibration.temperature + calibration.bias
        return odds.view(-1, 1, 1), torch.tensor(self.right, dtype=torch.long).view(-1, 1)


Fitter = LogitFitter | ConfidenceFitter


def collect_predictions(model: MultimodalModel, data: DataSource, split: str) -> dict[str, Fitter]:
    """Predict every row of a split, and keep what fits the calibration of each head that can be calibrated.

    Args:
        model: A model without a calibration, in evaluation mode.
        data: Rows that the model's transforms read.
        split: The rows' split.

    Returns:
        Head name to its fitter.
    """
    device = next(model.parameters()).device
    fitters: dict[str, Fitter] = {}
    with torch.inference_mode():
        for batch in tqdm(data.loader(split), desc=split, leave=False, disable=None):  # None: only on a terminal
            batch = data.finish(to_device(batch, device))
            merged = model.merge(model(batch.inputs, batch.masks), batch)
            for name, head in model.heads.items():
                kind = type(merged.predictions[name])
                if name not in fitters and kind.calibration == "platt":
                    fitters[name] = ConfidenceFitter(head, kind, [], [])
                elif name not in fitters and (kind.calibration is not None or kind.has_sets):
                    fitters[name] = LogitFitter(head, kind, [])
                if name in fitters:
                    fitters[name].add(name, merged, data)
    return fitters


def fit_calibrations(
    model: MultimodalModel, fitters: Mapping[str, Fitter], alpha: float | None, seed: int
) -> tuple[dict[str, Calibration], dict[str, str]]:
    """Fit the calibration of each head.

    Where a head has both a temperature and conformal sets, a random half of its labelled rows fits the temperature and
    the other half the sets: their guarantee holds for new rows that are exchangeable with those that fitted the sets,
    which those that fitted the temperature are not. A head that has only one of them gets all rows for it.

    Args:
        model: Its heads are calibrated.
        fitters: Head name to its predictions of the rows.
        alpha: The fraction of new rows whose truth the sets may miss; None for no sets.
        seed: Decides the halves.

    Returns:
        The calibration of each head that has one, and why a head has none, or only a part of it.

    Raises:
        ValueError: If no head can be calibrated, or the rows are too few for alpha.
    """
    calibrations: dict[str, Calibration] = {}
    skipped: dict[str, str] = {}
    for name, head in model.heads.items():
        fitted, quantiles, reasons = None, (), []
        rows = {"temperature": fitters.get(name), "sets": fitters.get(name)}
        kind = fitters[name].kind if name in fitters else Prediction
        if alpha is not None and has_both(kind):
            rows["temperature"], rows["sets"] = cast(LogitFitter, fitters[name]).halves(seed)
        if kind.calibration is not None:
            try:
                fitted = cast(Fitter, rows["temperature"]).fit()
            except ValueError as error:
                reasons.append(f"no temperature: {error}")
        else:
            reasons.append(f"no temperature: a {type(head).__name__} predicts no probability")
        if alpha is not None and kind.has_sets:
            quantiles = fit_quantiles(name, cast(LogitFitter, rows["sets"]), fitted or Calibration(), alpha)
        elif alpha is not None:
            reasons.append(f"no sets: a {type(head).__name__} has no prediction sets")
        elif kind.has_sets and kind.calibration is None:
            reasons.append("conformal=0.1 would give it intervals")
        if reasons:
            skipped[name] = "; ".join(reasons)
        if fitted is not None or quantiles:
            calibrations[name] = replace(
                fitted or Calibration(), quantiles=quantiles, alpha=alpha if quantiles else None
            )
    if not calibrations:
        reasons = ", ".join(f"{name}: {reason}" for name, reason in skipped.items())
        raise ValueError(f"nothing can be calibrated: {reasons}")
    return calibrations, skipped


def fit_quantiles(name: str, fitter: LogitFitter, calibration: Calibration, alpha: float) -> tuple[float, ...]:
    """Fit the quantiles of the nonconformity, one for each question.

    Args:
        name: The head, for messages.
        fitter: Rows that the temperature was not fitted on.
        calibration: Holds the temperature.
        alpha: The fraction of new rows whose truth the sets may miss.

    Raises:
        ValueError: If there are too few rows.
    """
    try:
        scores = fitter.nonconformity(calibration.temperature)
        return tuple(conformal_quantile(scores[:, g], alpha) for g in range(scores.shape[1]))
    except ValueError as error:
        half = ""
        if has_both(fitter.kind):
            least = 2 * min_conformal_rows(alpha)
            half = f"; the other half of the rows fits the temperature, so that at least {least} are needed in all"
        raise ValueError(f"conformal={alpha:g}: '{name}': {error}{half}") from None


def measure_calibration(
    fitter: Fitter, calibration: Calibration, held_out: bool
) -> tuple[dict[str, float], dict[str, LogitsAndTruth]]:
    """Measure a head's calibration error, likelihood and coverage on some rows.

    Args:
        fitter: The head's predictions of the rows.
        calibration: The head's calibration.
        held_out: Whether it was fitted on other rows, so that coverage says something.

    Returns:
        Name to number, and the logits and truth "before" and "after" calibration; both are empty where no row is
        labelled.
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
    if held_out and isinstance(fitter, LogitFitter) and calibration.quantiles and calibration.alpha is not None:
        numbers |= measure_sets(fitter, calibration, calibration.alpha)
    return numbers, pairs


def measure_sets(fitter: LogitFitter, calibration: Calibration, alpha: float) -> dict[str, float]:
    """Measure how often a head's sets or intervals hold the truth, and how large they are on average.

    Args:
        fitter: Its predictions of rows that its calibration was not fitted on.
        calibration: Has quantiles.
        alpha: The calibration's.
    """
    fractions = coverage_by_question(fitter.nonconformity(calibration.temperature), calibration.quantiles)
    batches, decoding = fitter.tempered(calibration.temperature), fitter.head.decoding
    sets = [prediction.prediction_sets(calibration.quantiles, decoding, meta) for prediction, _, meta in batches]
    kind = next(iter(sets[0][0][0])).removeprefix("prediction_")  # set or interval
    numbers = {"coverage": sum(fractions) / len(fractions), "target_coverage": 1 - alpha}
    numbers |= {"min_class_coverage": min(fractions)} if len(fractions) > 1 else {}
    numbers[f"mean_{kind}_size"] = float(torch.cat([size.double() for _, size in sets]).mean())
    return numbers


def has_both(kind: type[Prediction]) -> bool:
    """Return whether predictions of a type have a temperature and sets, which are fitted on different rows."""
    return kind.has_sets and kind.calibration == "temperature"
