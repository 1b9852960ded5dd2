"""`mm evaluate robustness=default`: the metrics while one input after the other is corrupted, or taken away."""

import shutil
from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, NamedTuple

import numpy as np
from hydra.utils import instantiate
from lightning import Callback, LightningModule, Trainer
from omegaconf import DictConfig, OmegaConf
from torchmetrics import Metric
from tqdm import tqdm

from mm import checkpoint
from mm.assembly.construct import build
from mm.checkpoint import LoadedModel
from mm.cli import _curves
from mm.cli._curves import MISSING, Curves
from mm.features.files import FeatureStore
from mm.features.store import compute
from mm.messages import near, say
from mm.tasks.distributed.sharding import FSDP2Strategy
from mm.tasks.measures import metric_names
from mm.transforms.corrupt.corrupted import Corrupted, Without
from mm.types import Drawn


class Curve(NamedTuple):
    """What happens to one input, ever more strongly."""

    input: str
    name: str
    corruption: Any  # None: it is taken away, from a part of the rows


@dataclass
class Study:
    """What is measured on what."""

    cfg: DictConfig
    loaded: LoadedModel
    baseline: LoadedModel | None
    datamodule: Any
    rows: np.ndarray
    curves: list[Curve]
    metrics: dict[str, dict[str, Metric]]  # head -> name -> its primary metric, or none

    @property
    def severities(self) -> list[float]:
        """From 0 up."""
        return list(self.cfg.robustness.severities)


def plan(cfg: DictConfig, loaded: LoadedModel, datamodule: Any, metrics: Mapping[str, Mapping[str, Metric]]) -> Study:
    """Errors: ValueError for what can't be measured, before anything is."""
    asked = cfg.robustness
    check(asked)
    rows = datamodule.rows(cfg.split)
    if asked.rows is not None and asked.rows < len(rows):
        rows = np.sort(np.random.default_rng(cfg.seed).choice(rows, asked.rows, replace=False))
    baseline = None if asked.baseline is None else load_baseline(cfg, loaded)
    study = Study(cfg, loaded, baseline, datamodule, rows, curves(asked, loaded, datamodule), primary(metrics))
    for model in filter(None, (loaded, baseline)):
        for curve in study.curves:
            if curve.corruption is not None:
                corrupted(study, model, curve, 1.0)  # refuses transforms that it does not know
    return study


def check(asked: DictConfig) -> None:
    """Errors: ValueError where a setting is none of its values."""
    severities = asked.severities
    numbers = OmegaConf.is_list(severities) and [x for x in severities if type(x) in (int, float) and 0 <= x <= 1]
    if not numbers or numbers != list(severities) or sorted({0, *numbers}) != numbers or len(numbers) < 2:
        raise ValueError(f"robustness.severities: got {severities}, wanted 0 and others up to 1, ascending")
    if asked.rows is not None and (type(asked.rows) is not int or asked.rows < 1):
        raise ValueError(f"robustness.rows: got {asked.rows}, wanted a number of rows, or null for all")
    if asked.only is not None and not OmegaConf.is_list(asked.only):
        raise ValueError(f"robustness.only: got {asked.only}, wanted a list such as [{asked.only}], or null for all")


def curves(asked: DictConfig, loaded: LoadedModel, datamodule: Any) -> list[Curve]:
    """Of every input that the data has. Errors: ValueError where an unknown one is named, or none is left."""
    known = {modality: instantiate(node, _convert_="all") for modality, node in asked.corruptions.items()}
    names = [*dict.fromkeys(name for found in known.values() for name in found), MISSING]
    only = names if asked.only is None else list(asked.only)
    for name in only:
        if name not in names:
            raise ValueError(f"robustness.only: got '{name}', wanted some of {', '.join(names)}{near(name, names)}")
    inputs = {name: data for name, data in datamodule.table.spec.inputs.items() if name in loaded.transforms}
    anchors = {head.input: name for name, head in loaded.model.heads.items()}
    found = []
    for name, data in inputs.items():
        found += [Curve(name, c, made) for c, made in known.get(data.modality, {}).items() if c in only]
        if MISSING in only and name in anchors:
            say(f"robustness: '{name}' is not taken away, as it is its tokens that '{anchors[name]}' tells of")
        elif MISSING in only and len(inputs) > 1:
            found.append(Curve(name, MISSING, None))
    if not found:
        told = ", ".join(f"'{name}' ({data.modality})" for name, data in inputs.items())
        raise ValueError(f"robustness.only: {', '.join(only) or 'nothing'} can't happen to {told}")
    return found


def primary(metrics: Mapping[str, Mapping[str, Metric]]) -> dict[str, dict[str, Metric]]:
    """Of each head its first metric of which more, or less, is better; one of several numbers where there is no other.

    Errors: ValueError where no head has any.
    """
    found: dict[str, dict[str, Metric]] = {}
    for head, named in metrics.items():
        known = {name: metric for name, metric in named.items() if metric.higher_is_better is not None}
        first = sorted(known, key=lambda name: isinstance(known[name], Drawn))[:1]
        found[head] = {name: known[name] for name in first}
    if not any(found.values()):
        raise ValueError("robustness: no head has a metric of which more, or less, is better")
    return found


def load_baseline(cfg: DictConfig, loaded: LoadedModel) -> LoadedModel:
    """Errors: ValueError where it reads other inputs, or predicts something else."""
    where = cfg.robustness.baseline
    found = checkpoint.load(where, list(cfg.allow))
    ours, theirs = ({n: d.modality for n, d in one.spec.inputs.items()} for one in (loaded, found))
    if ours != theirs:
        told, own = (", ".join(f"{n} ({modality})" for n, modality in one.items()) for one in (theirs, ours))
        raise ValueError(
            f"robustness.baseline: {where} reads {told}, but the model {own}; both must read the same inputs of the "
            "same modalities"
        )
    for name, target in loaded.spec.targets.items():
        other = found.spec.targets.get(name)
        if other is None or (other.kind, other.classes) != (target.kind, target.classes):
            raise ValueError(
                f"robustness.baseline: {where} does not predict '{name}' with the model's classes; train both on the "
                "same data"
            )
    return found


def run(study: Study, trainer: Trainer, task: Any, folder: Path) -> None:
    """Measure; the results and the picture become the task's. Errors: ValueError under trainer=fsdp."""
    if isinstance(trainer.strategy, FSDP2Strategy):
        raise ValueError("robustness: trainer=fsdp has shared the model out; use trainer=ddp, or one process")
    severities = study.severities
    ours = measure(study, trainer, study.loaded)
    base = measure(study, trainer, study.baseline) if study.baseline else {}
    better = {head: bool(m.higher_is_better) for head, named in study.metrics.items() for m in named.values()}
    results = _curves.numbers(severities, ours, base, better)
    task.results |= results
    task.figures["robustness"] = partial(_curves.figure, severities, ours, base)
    if trainer.is_global_zero:
        path = folder / "robustness.csv"
        _curves.write(path, severities, ours, base)
        _curves.show(ours, results, len(study.rows), path)


def measure(study: Study, trainer: Trainer, loaded: LoadedModel) -> Curves:
    """The primary metrics of a model over severity. Inputs that nothing happens to are encoded once."""
    part = subset(study, loaded)
    task = build(study.cfg, "task", _partial_=True)(model=loaded.model, metrics=study.metrics)
    inputs = [name for name in part.table.spec.inputs if name in loaded.transforms]
    keeping = Keeping(Path(study.cfg.paths.cache), inputs if len(inputs) > 1 else [])
    found: Curves = {}
    bar: Any = trainer.progress_bar_callback  # type: ignore[attr-defined]
    bar.disable()
    try:
        trainer.callbacks.append(keeping)  # type: ignore[attr-defined]
        clean = validate(study, trainer, task, part)
        trainer.callbacks.remove(keeping)  # type: ignore[attr-defined]
        steps = [(curve, severity) for curve in study.curves for severity in study.severities[1:]]
        for curve, severity in tqdm(steps, desc="robustness", leave=False, disable=not trainer.is_global_zero):
            part.stored = dict(keeping.stored)
            if curve.corruption is None:
                lost = np.random.default_rng(study.cfg.seed).permutation(study.rows)
                lost = lost[: round(severity * len(lost))].tolist()
                part.stored[curve.input] = Without(keeping.stored[curve.input], lost)
            else:
                part.stored[curve.input] = corrupted(study, loaded, curve, severity)
            for place, value in validate(study, trainer, task, part).items():
                found.setdefault((*place, curve.input, curve.name), [clean[place]]).append(value)
    finally:
        keeping.remove(trainer)
    return found


def subset(study: Study, loaded: LoadedModel) -> Any:
    """A datamodule whose validation rows are those of the study, read by a model's own transforms."""
    part = copy(study.datamodule)
    split = np.full(len(part.table.ids), "", dtype=object)
    split[study.rows] = "val"
    part.table = replace(part.table, split=split)
    part.faults, part.long = {}, set()
    part.use(loaded.transforms)
    return part


def corrupted(study: Study, loaded: LoadedModel, curve: Curve, severity: float) -> Corrupted:
    """What reads an input in the place of its own transform."""
    table = study.datamodule.table
    return Corrupted(
        loaded.transforms[curve.input],
        table.inputs[curve.input],
        table.spec.inputs[curve.input].modality,
        curve.corruption,
        severity,
        study.cfg.seed,
    )


def validate(study: Study, trainer: Trainer, task: Any, part: Any) -> dict[tuple[str, str], float]:
    """(head, metric) -> value. Errors: ValueError where no row has a label."""
    logged = trainer.validate(task, datamodule=part, verbose=False)[0]
    found = {}
    for head, named in study.metrics.items():
        for name in (metric_names(*item)[0] for item in named.items()):
            key = f"val/{name}" if len(task.model.heads) == 1 else f"val/{head}/{name}"
            if key not in logged:
                raise ValueError(f"robustness: none of {len(study.rows)} rows has a label of '{head}'")
            found[head, name] = logged[key]
    return found


class Keeping(Callback):
    """Before a pass, the Features of some inputs of all its rows, in files of a new folder of `cache`."""

    def __init__(self, cache: Path, inputs: list[str]):
        self.cache = cache
        self.inputs = inputs
        self.folder: Path | None = None
        self.stored: dict[str, Any] = {}  # input name -> FeatureStore

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.cache.mkdir(parents=True, exist_ok=True)
        made = mkdtemp(prefix="robustness-", dir=self.cache) if trainer.is_global_zero else ""
        self.folder = Path(trainer.strategy.broadcast(made))
        model: Any = pl_module.model
        for name in self.inputs:
            encoder = model.encoders[model.share.get(name, name)]
            compute(trainer, trainer.datamodule, name, encoder, self.folder / name)  # type: ignore[attr-defined]
            self.stored[name] = FeatureStore(self.folder / name)

    def remove(self, trainer: Trainer) -> None:
        """The files: nobody reads them again."""
        if self.folder is not None and trainer.is_global_zero:
            shutil.rmtree(self.folder)
