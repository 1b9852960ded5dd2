"""Make a model directory's confidence true, by its validation rows."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from mm.cli._app import launch, save_overrides, shown
from mm.messages import cell, plain

if TYPE_CHECKING:
    from omegaconf import DictConfig


def main(argv: list[str]) -> None:
    launch("calibrate", argv, job)


def job(cfg: "DictConfig", folder: Path) -> None:
    from mm.calibration import calibrate
    from mm.calibration.calibrate import check_split
    from mm.cli import _apply, _results
    from mm.runs.results import write_figures, write_metrics

    check_split(cfg.split)
    alpha = cfg.conformal
    if alpha is not None and (type(alpha) not in (int, float) or not 0 < alpha < 1):
        raise ValueError(f"conformal: got {alpha}, wanted a part of the rows between 0 and 1, such as 0.1, or null")
    if str(cfg.checkpoint).startswith("wandb:"):
        raise ValueError(f"checkpoint={cfg.checkpoint}: mm calibrate writes into it: wanted a folder of your own")
    model = _apply.load(cfg)
    if not len(model.model.heads):
        raise ValueError(f"{model.path}: this model predicts nothing: it has no head whose confidence could be true")
    data = _apply.datamodule(cfg, model, labelled=True, drawn=cfg.split == "val")
    source, split = data.table.source, data.split
    rows = f"validation rows of {source} (drawn where it names none, with val={split.val:g}, seed={split.seed})"
    if cfg.split == "all":
        rows = f"rows of {source}, which the model must not have been trained on"
    report = calibrate(model, data, alpha, cfg.split, cfg.seed, cfg.device, rows, inplace=True)
    assert model.path is not None
    report.update_directory(model.path)
    save_overrides(folder)
    saved = {"model": model.path, "metrics": write_metrics(folder, report.metrics, {})}
    saved |= {path.stem: path for path in write_figures(folder, report.figures)}
    if data.faults:
        saved["errors"] = folder / "errors.csv"
        data.write_errors(saved["errors"])
    print_table(report.results)
    print(plain(f"calibrated by {report.description}"))
    notes = [f"{name}: {reason}" for name, reason in report.skipped.items()] + _results.notes(report.metrics)
    for line in notes:
        print(f"  {plain(line)}")
    for name, path in saved.items():
        print(f"{name:16} {plain(shown(path))}")
    print(shown(folder))


def print_table(results: Mapping[str, Mapping[str, float]]) -> None:
    """Print a line per head and split: place to name to number, as in a `CalibrationReport`."""
    from rich.console import Console
    from rich.table import Column, Table

    names = list(
        dict.fromkeys(name for found in results.values() for name in found if not name.endswith("_uncalibrated"))
    )
    heads = [Column(cell(name.replace("_", " ")), overflow="fold") for name in names]
    table = Table(Column("", no_wrap=True), *heads)
    for place, numbers in results.items():
        cells = [f"{numbers[name]:.4g}" if name in numbers else "" for name in names]
        before = [
            f"{numbers[f'{name}_uncalibrated']:.4g} -> " if f"{name}_uncalibrated" in numbers else "" for name in names
        ]
        table.add_row(cell(place), *(b + cell for b, cell in zip(before, cells)))
    Console(width=None if sys.stdout.isatty() else 160).print(table)
