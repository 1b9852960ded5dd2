"""Fitting of the calibration of each head on rows with known targets, and its measurement on other rows."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import Tensor
from torch.nn.functional import pad
from tqdm import tqdm

from mm._compat.torch import tree_map_only
from mm.calibration.conformal import conformal_quantile, min_conformal_rows
from mm.calibration.platt import fit_platt
from mm.calibration.temperature import IMPOSSIBLE_LOGIT, fit_temperature
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
    """Uncalibrated predictions with logits or prediction sets of one head, with the targets of their rows.

    Args:
        head: The head.
        kind: Type of its predictions, which supports a temperature, prediction sets or both.
        batches: Predictions, targets and meta of each batch.
    """

    head: Head
    kind: type[Prediction]
    batches: list[tuple[Prediction, Tensor, dict[str, Tensor]]]

    def add(self, name: str, merged: MergedOutput, data: DataSource) -> None:
        """Append the rows of a batch.

        Args:
            name: Name of the head.
            merged: Output of the model, with the windows of each row merged.
            data: Not used.
        """
        batch = merged.predictions[name], merged.targets[name], merged.meta
        self.batches.append(tree_map_only(Tensor, Tensor.cpu, batch))

    @property
    def rows(self) -> int:
        """The number of labelled rows."""
        return sum(int(labelled(target).sum()) for _, target, _ in self.batches)

    def fit(self) -> Calibration:
        """Fit a temperature.

        Raises:
            ValueError: If there is no best temperature, or if no row is labelled.
        """
        return Calibration(temperature=fit_temperature(*self.logits(Calibration())))

    def tempered(self, temperature: float) -> Iterator[tuple[Prediction, Tensor, dict[str, Tensor]]]:
        """Yield the predictions at a temperature, the targets and the meta of the labelled rows of each batch."""
        for prediction, target, meta in self.batches:
            rows = labelled(target)
            if rows.any():
                prediction, target, meta = pick((prediction, target, meta), rows)
                yield prediction if temperature == 1 else prediction.temper(temperature), target, meta

    def logits(self, calibration: Calibration) -> LogitsAndTruth:
        """Return the logits at the temperature of a calibration, and the true classes, of the labelled rows.

        Rows with fewer classes than others are padded with impossible classes.

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
        """Return the nonconformity scores of the true targets, (N, G), with NaN for unlabelled sub-targets.

        Args:
            temperature: Temperature by which the logits are divided.

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
            seed: Random seed. The division depends only on the seed and the number of labelled rows, and not on the
                size of the batches, as long as the rows keep their order.

        Returns:
            Two fitters without common rows. If the number of rows is odd, the first has one more.
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
        """Return the error message for a head without labelled rows."""
        return f"none of its {sum(len(target) for _, target, _ in self.batches)} rows has a label"


@dataclass
class ConfidenceFitter:
    """Log-odds of the answers of one head, and whether the answers are right.

    Args:
        head: The head.
        kind: Type of its predictions, whose answers have a confidence.
        odds: Log-odds of each answer.
        right: Whether each answer is right.
        rows: Number of labelled rows.
        num_targets: Number of true answers, if a row has any number of them.
    """

    head: Head
    kind: type[Prediction]
    odds: list[float]
    right: list[bool]
    rows: int = 0
    num_targets: int = 0

    def add(self, name: str, merged: MergedOutput, data: DataSource) -> None:
        """Append the answers of a batch.

        Args:
            name: Name of the head.
            merged: Output of the model, with the windows of each row merged.
            data: The source of the rows, which returns their targets in readable form.
        """
        rows = (labelled(merged.targets[name]) & (merged.row >= 0)).nonzero().flatten()
        meta = {key: x[rows] for key, x in merged.meta.items()}
        prediction = pick(merged.predictions[name], rows)
        answers = self.head.decode(prediction, pick(merged.fused, rows), meta)
        truth = [data.truth(name, row) for row in merged.row[rows].tolist()]
        odds, right = prediction.confidences(answers, truth, self.head.decoding)
        self.odds += odds
        self.right += right
        self.rows += len(rows)
        if self.kind.has_threshold:
            self.num_targets += sum(len(answers) for answers in truth)

    def fit(self) -> Calibration:
        """Fit a temperature and a bias of the log-odds.

        Raises:
            ValueError: If there is no answer, or if Platt scaling fails.
        """
        if not self.odds:
            raise ValueError(f"nothing is predicted for its {self.rows} labelled rows")
        odds, right = self.logits(Calibration())
        temperature, bias = fit_platt(odds.flatten(), right.flatten())
        return Calibration(temperature=temperature, bias=bias, exact=True)

    def logits(self, calibration: Calibration) -> LogitsAndTruth:
        """Return the calibrated log-odds of each answer, (N, 1, 1), and whether it is right, (N, 1)."""
        odds = torch.tensor(self.odds, dtype=torch.double)
        odds = odds / calibration.temperature + calibration.bias
        return odds.view(-1, 1, 1), torch.tensor(self.right, dtype=torch.long).view(-1, 1)


Fitter = LogitFitter | ConfidenceFitter


def collect_predictions(model: MultimodalModel, data: DataSource, split: str) -> dict[str, Fitter]:
    """Predict every row of a split, and collect the predictions of each head that can be calibrated.

    Args:
        model: A model without calibration, in evaluation mode.
        data: Rows that are transformed by the transforms of the model.
        split: Split of the rows.

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

    If a head gets both a temperature and prediction sets, a random half of its labelled rows is used to fit the
    temperature and the other half to fit the sets. The guarantee of the sets holds for new rows that are exchangeable
    with the rows on which the sets are fitted, which is not true of rows on which the temperature was fitted. A head
    that gets only one of them uses all rows for it.

    Args:
        model: The model whose heads are calibrated.
        fitters: Head name to its collected predictions.
        alpha: Fraction of new rows whose prediction set may miss the true value; None: no prediction sets.
        seed: Random seed of the division into halves.

    Returns:
        Head name to calibration, and head name to the reason why nothing, or only a part of it, was fitted.

    Raises:
        ValueError: If no head can be calibrated, or if there are too few rows for `alpha`.
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
            reasons.append("alpha=0.1 would give it intervals")
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
    """Return the conformal quantile of the nonconformity scores of each sub-target.

    Args:
        name: Name of the head, for messages.
        fitter: Predictions of rows on which the temperature was not fitted.
        calibration: Calibration with the temperature.
        alpha: Fraction of new rows whose prediction set may miss the true value.

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
        raise ValueError(f"alpha={alpha:g}: '{name}': {error}{half}") from None


def has_both(kind: type[Prediction]) -> bool:
    """Return whether a type of predictions has a temperature and prediction sets, which need different rows."""
    return kind.has_sets and kind.calibration == "temperature"
