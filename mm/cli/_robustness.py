"""`mm evaluate robustness=default`: the settings from the config, and a table of the curves."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hydra.utils import instantiate
from lightning import Trainer
from omegaconf import DictConfig, OmegaConf
from torchmetrics import Metric

from mm import checkpoint
from mm.assembly.construct import build
from mm.checkpoint import TrainedModel
from mm.cli._app import shown
from mm.evaluation.curves import Curves, write_curves
from mm.evaluation.robustness import RobustnessRun, RobustnessSettings, measure_robustness, plan_robustness
from mm.messages import cell, plain


def plan(cfg: DictConfig, model: TrainedModel, data: Any, metrics: Mapping[str, Mapping[str, Metric]]) -> RobustnessRun:
    """Check what the config asks for before anything is measured."""
    config: Any = OmegaConf.to_container(cfg.robustness)
    chosen = {key: config[key] for key in ("severities", "rows", "corruptions")}
    RobustnessSettings(available={}, **chosen)  # before corruptions are built and a baseline is loaded
    available = {modality: instantiate(node, _convert_="all") for modality, node in cfg.robustness.available.items()}
    baseline = config["baseline"]
    other = None if baseline is None else checkpoint.load(baseline, list(cfg.allow))
    settings = RobustnessSettings(available=available, baseline=other, **chosen)
    make_task = build(cfg, "task", _partial_=True)
    return plan_robustness(model, data, metrics, settings, make_task, Path(cfg.paths.cache), cfg.split, cfg.seed)


def run(planned: RobustnessRun, trainer: Trainer, task: Any, folder: Path) -> None:
    """Measure; the results and the picture become the task's."""
    report = measure_robustness(planned, trainer)
    task.results |= report.metrics
    task.figures["robustness"] = report.figure
    if trainer.is_global_zero:
        path = folder / "robustness.csv"
        write_curves(path, report.severities, report.curves, report.baseline)
        print_curves(report.curves, report.metrics, report.num_rows, path)


def print_curves(ours: Curves, results: Mapping[str, float], rows: int, path: Path) -> None:
    """A line per curve: the value at the first and the last severity, relative and effective robustness; its file."""
    from rich.console import Console
    from rich.table import Table

    several = len({head for head, *_ in ours}) > 1
    kinds = [kind for kind in ("relative", "effective") if any(key.endswith(f"/{kind}") for key in results)]
    table = Table("input", "corruption", "metric", "clean", "worst", *kinds, title=f"robustness, {rows} rows")
    for (head, metric, name, corruption), values in ours.items():
        place = f"robustness[{name}]{f'/{head}' if several else ''}/{corruption}"
        told = [f"{values[0]:.4f}", f"{values[-1]:.4f}", *(f"{results[f'{place}/{kind}']:.4f}" for kind in kinds)]
        table.add_row(cell(name), corruption, cell(f"{head}/{metric}" if several else metric), *told)
    Console(width=None if sys.stdout.isatty() else 120).print(table)
    print(f"curves       {plain(shown(path))}")
