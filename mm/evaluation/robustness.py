"""Robustness: evaluation while one input at a time is corrupted or removed."""

import logging
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from lightning import LightningModule, Trainer
from torchmetrics import Metric
from tqdm import tqdm

from mm.checkpoint import TrainedModel
from mm.evaluation.curves import MISSING, Curves, draw_curves, summarise_curves, write_curves
from mm.evaluation.retained_features import RetainedFeatures
from mm.messages import is_first_process, near, plain
from mm.reports import HasFigure, Report, Table
from mm.tasks.distributed.sharding import FSDP2Strategy
from mm.tasks.measures import metric_names
from mm.transforms.corrupt.corrupted import CorruptedTransform, DroppedInput
from mm.types import DataSpec

if TYPE_CHECKING:
    from matplotlib.figure import Figure

log = logging.getLogger("mm")


class CorruptedInput(NamedTuple):
    """An input and the corruption that is applied to it with increasing severity.

    Attributes:
        input: Name of the input.
        name: Name of the corruption in results.
        corruption: Corruption of the raw values; None: the input is removed from a fraction of the rows.
    """

    input: str
    name: str
    corruption: Any


@dataclass(kw_only=True)
class RobustnessSettings:
    """Corruptions of the inputs, and their severities.

    Args:
        available: Modality to name to a corruption of `mm.transforms.corrupt`, whose parameters are those of severity
            1.
        severities: Ascending severities from 0 to at most 1; they have to contain 0.
        rows: Number of rows to evaluate, drawn by the seed; None: all rows of the split.
        corruptions: Names of the corruptions to apply, and `missing` to remove inputs; None: all.
        baseline: Another model of the same inputs and classes, for effective robustness; None: there is no baseline.
    """

    available: Mapping[str, Mapping[str, Any]]
    severities: Sequence[float] = (0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1)
    rows: int | None = None
    corruptions: Sequence[str] | None = None
    baseline: TrainedModel | None = None

    def __post_init__(self) -> None:
        severities = list(self.severities) if isinstance(self.severities, list | tuple) else []
        numbers = [x for x in severities if type(x) in (int, float) and 0 <= x <= 1]
        if not numbers or numbers != severities or sorted({0, *numbers}) != numbers or len(numbers) < 2:
            raise ValueError(f"robustness.severities: got {self.severities}, wanted 0 and others up to 1, ascending")
        if self.rows is not None and (type(self.rows) is not int or self.rows < 1):
            raise ValueError(f"robustness.rows: got {self.rows}, wanted a number of rows, or null for all")
        if self.corruptions is not None and not isinstance(self.corruptions, list | tuple):
            got = self.corruptions
            raise ValueError(f"robustness.corruptions: got {got}, wanted a list such as [{got}], or null for all")


@dataclass
class RobustnessRun:
    """A robustness evaluation whose settings were checked, see `plan_robustness`."""

    settings: RobustnessSettings
    model: TrainedModel
    data: Any  # a DataModule
    rows: np.ndarray
    curves: list[CorruptedInput]
    metrics: dict[str, dict[str, Metric]]  # head to the name and its primary metric; empty if it has none
    make_task: Callable[..., LightningModule]  # (model=, metrics=), as mm.tasks.supervised.Supervised
    cache: Path
    seed: int

    @property
    def severities(self) -> list[float]:
        """Return the severities, from 0."""
        return list(self.settings.severities)


@dataclass(repr=False)
class RobustnessReport(Report):
    """Metrics over the severity of each corruption.

    Attributes:
        metrics: Relative and effective robustness, such as `robustness[vision]/jpeg/relative`, and their means.
        severities: The severities, from 0.
        curves: (head, metric, input, corruption) to the metric at each severity.
        baseline: The same curves of the baseline; empty if there is no baseline.
        num_rows: Number of evaluated rows.
    """

    metrics: Mapping[str, float]
    severities: list[float]
    curves: Curves
    baseline: Curves
    num_rows: int

    def table(self) -> Table:
        """Return a row for each curve, with the metric for clean and for the most corrupted inputs."""
        columns = ["head", "metric", "input", "corruption", "clean", "worst"]
        return Table(columns, [[*key, values[0], values[-1]] for key, values in self.curves.items()])

    def figure(self) -> "Figure":
        """Draw a panel for each head and input, with a line for each corruption."""
        return draw_curves(self.severities, self.curves, self.baseline)

    def save(self, folder: str | Path) -> Path:
        """Write metrics.json, and robustness.csv with a line for each curve and severity."""
        folder = super().save(folder)
        write_curves(folder / "robustness.csv", self.severities, self.curves, self.baseline)
        return folder


def plan_robustness(
    model: TrainedModel,
    data: Any,
    metrics: Mapping[str, Mapping[str, Metric]],
    settings: RobustnessSettings,
    make_task: Callable[..., LightningModule],
    cache: Path,
    split: str = "test",
    seed: int = 0,
) -> RobustnessRun:
    """Check all settings of a robustness evaluation before it starts.

    Args:
        model: A trained model.
        data: A DataModule with the transforms of the model.
        metrics: Head to name to metric. The first metric of each head that has a direction is evaluated.
        settings: The corruptions.
        make_task: Function that builds the task for validation from `model` and `metrics`.
        cache: Folder for features of inputs that are not corrupted, which are removed at the end.
        split: Split of the rows.
        seed: Random seed of the choice of rows and of the corruptions.

    Returns:
        The checked evaluation.

    Raises:
        ValueError: If a setting is invalid, or does not fit the model or the data.
    """
    rows = data.rows(split)
    if settings.rows is not None and settings.rows < len(rows):
        rows = np.sort(np.random.default_rng(seed).choice(rows, settings.rows, replace=False))
    if settings.baseline is not None:
        check_baseline(model, settings.baseline)
    curves = choose_curves(settings, model, data.spec)
    run = RobustnessRun(settings, model, data, rows, curves, primary(metrics), make_task, cache, seed)
    for one in filter(None, (model, settings.baseline)):
        for curve in curves:
            if curve.corruption is not None:
                corrupted(run, one, curve, 1.0)  # raises for unsupported transforms
    return run


def choose_curves(settings: RobustnessSettings, model: TrainedModel, spec: DataSpec) -> list[CorruptedInput]:
    """Choose the corruptions of every input that the data has.

    Raises:
        ValueError: If a corruption is unknown, or if none fits the inputs.
    """
    names = [*dict.fromkeys(name for by_name in settings.available.values() for name in by_name), MISSING]
    chosen = names if settings.corruptions is None else list(settings.corruptions)
    for name in chosen:
        if name not in names:
            known = ", ".join(names)
            raise ValueError(f"robustness.corruptions: got '{name}', wanted some of {known}{near(name, names)}")
    inputs = {name: data for name, data in spec.inputs.items() if name in model.transforms}
    anchors = {head.input: name for name, head in model.model.heads.items()}
    curves = []
    for name, data in inputs.items():
        known = settings.available.get(data.modality, {})
        curves += [CorruptedInput(name, other, corruption) for other, corruption in known.items() if other in chosen]
        if MISSING in chosen and name in anchors:
            if is_first_process():
                text = f"robustness: '{name}' is not taken away: '{anchors[name]}' predicts something of its tokens"
                log.info(plain(text))
        elif MISSING in chosen and len(inputs) > 1:
            curves.append(CorruptedInput(name, MISSING, None))
    if not curves:
        listed = ", ".join(f"'{name}' ({data.modality})" for name, data in inputs.items())
        raise ValueError(f"robustness.corruptions: {', '.join(chosen) or 'nothing'} can't happen to {listed}")
    return curves


def primary(metrics: Mapping[str, Mapping[str, Metric]]) -> dict[str, dict[str, Metric]]:
    """Return the first metric with a direction of each head, preferably one that has a single value.

    Raises:
        ValueError: If no head has a metric with a direction.
    """
    found: dict[str, dict[str, Metric]] = {}
    for head, named in metrics.items():
        known = {name: metric for name, metric in named.items() if metric.higher_is_better is not None}
        first = sorted(known, key=lambda name: isinstance(known[name], HasFigure))[:1]
        found[head] = {name: known[name] for name in first}
    if not any(found.values()):
        raise ValueError("robustness: no head has a metric of which more, or less, is better")
    return found


def check_baseline(model: TrainedModel, baseline: TrainedModel) -> None:
    """Check that two models read the same inputs and predict the same classes.

    Raises:
        ValueError: If they differ in inputs or classes.
    """
    where = baseline.path
    ours, theirs = ({n: d.modality for n, d in one.spec.inputs.items()} for one in (model, baseline))
    if ours != theirs:
        told, own = (", ".join(f"{n} ({modality})" for n, modality in one.items()) for one in (theirs, ours))
        raise ValueError(
            f"robustness.baseline: {where} reads {told}, but the model {own}; both must read the same inputs of the "
            "same modalities"
        )
    for name, target in model.spec.targets.items():
        other = baseline.spec.targets.get(name)
        if other is None or (other.kind, other.classes) != (target.kind, target.classes):
            raise ValueError(
                f"robustness.baseline: {where} does not predict '{name}' with the model's classes; train both on the "
                "same data"
            )


def measure_robustness(run: RobustnessRun, trainer: Trainer) -> RobustnessReport:
    """Evaluate a model, and its baseline, at each severity of each corruption.

    Args:
        run: The evaluation from `plan_robustness`.
        trainer: A Lightning Trainer, whose processes divide the rows among them.

    Returns:
        The report.

    Raises:
        ValueError: If the Trainer has sharded the model (fsdp), or if no row has a label.
    """
    if isinstance(trainer.strategy, FSDP2Strategy):
        raise ValueError("robustness: trainer=fsdp has shared the model out; use trainer=ddp, or one process")
    curves = measure(run, trainer, run.model)
    baseline = measure(run, trainer, run.settings.baseline) if run.settings.baseline else {}
    better = {head: bool(m.higher_is_better) for head, named in run.metrics.items() for m in named.values()}
    metrics = summarise_curves(run.severities, curves, baseline, better)
    return RobustnessReport(metrics, run.severities, curves, baseline, len(run.rows))


def measure(run: RobustnessRun, trainer: Trainer, loaded: TrainedModel) -> Curves:
    """Return the curves of a model. Inputs that are not corrupted are encoded only once."""
    part = subset(run, loaded)
    task = run.make_task(model=loaded.model, metrics=run.metrics)
    inputs = [name for name in part.table.spec.inputs if name in loaded.transforms]
    retained = RetainedFeatures(run.cache, inputs if len(inputs) > 1 else [])
    found: Curves = {}
    bar: Any = trainer.progress_bar_callback
    bar.disable()
    try:
        trainer.callbacks.append(retained)  # type: ignore[attr-defined]
        clean = validate(run, trainer, task, part)
        trainer.callbacks.remove(retained)  # type: ignore[attr-defined]
        steps = [(curve, severity) for curve in run.curves for severity in run.severities[1:]]
        for curve, severity in tqdm(steps, desc="robustness", leave=False, disable=not trainer.is_global_zero):
            part.stored = dict(retained.stored)
            if curve.corruption is None:
                lost = np.random.default_rng(run.seed).permutation(run.rows)
                lost = lost[: round(severity * len(lost))].tolist()
                part.stored[curve.input] = DroppedInput(retained.stored[curve.input], lost)
            else:
                part.stored[curve.input] = corrupted(run, loaded, curve, severity)
            for place, value in validate(run, trainer, task, part).items():
                found.setdefault((*place, curve.input, curve.name), [clean[place]]).append(value)
    finally:
        retained.remove(trainer)
    return found


def subset(run: RobustnessRun, loaded: TrainedModel) -> Any:
    """Return a data module whose validation rows are the evaluated rows, with the transforms of a model."""
    part = copy(run.data)
    split = np.full(len(part.table.ids), "", dtype=object)
    split[run.rows] = "val"
    part.table = replace(part.table, split=split)
    part.faults, part.notes = {}, set()
    part.use(loaded.transforms)
    return part


def corrupted(run: RobustnessRun, loaded: TrainedModel, curve: CorruptedInput, severity: float) -> CorruptedTransform:
    """Return a transform that corrupts an input before it applies the transform of the model."""
    table = run.data.table
    return CorruptedTransform(
        loaded.transforms[curve.input],
        table.inputs[curve.input],
        table.spec.inputs[curve.input].modality,
        curve.corruption,
        severity,
        run.seed,
    )


def validate(run: RobustnessRun, trainer: Trainer, task: Any, part: Any) -> dict[tuple[str, str], float]:
    """Run a validation and return (head, metric) to value.

    Raises:
        ValueError: If no row has a label.
    """
    logged = trainer.validate(task, datamodule=part, verbose=False)[0]
    found = {}
    for head, named in run.metrics.items():
        for name in (metric_names(*item)[0] for item in named.items()):
            key = f"val/{name}" if len(task.model.heads) == 1 else f"val/{head}/{name}"
            if key not in logged:
                raise ValueError(f"robustness: none of {len(run.rows)} rows has a label of '{head}'")
            found[head, name] = logged[key]
    return found
