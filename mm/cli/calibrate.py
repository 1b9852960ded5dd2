"""Calibrate the probabilities of a model directory on its validation rows."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from mm.cli._verb import run_verb
from mm.files import shown
from mm.messages import plain

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from mm.assembly.applied import Applied
    from mm.calibration import CalibrationReport


def main(argv: list[str]) -> None:
    run_verb("calibrate", argv, "mm.assembly.applied:calibrate_config", show)


def show(done: "Applied[CalibrationReport]", cfg: "DictConfig", folder: Path) -> None:
    """Print the confidence before and after, by which rows, notes, and the files."""
    from mm.runs.summary import data_notes

    report = done.report
    print_table(report.results)
    print(plain(f"calibrated by {report.description}"))
    skipped = [f"{name}: {reason}" for name, reason in report.skipped.items()]
    for line in [*skipped, *data_notes(report.metrics)]:
        print(f"  {plain(line)}")
    for name, path in done.files.items():
        print(f"{name:16} {plain(shown(path))}")
    print(shown(folder))


def print_table(results: Mapping[str, Mapping[str, float]]) -> None:
    """Print a line per head and split: place to name to number, as in a `CalibrationReport`."""
    from rich.table import Column

    from mm.cli._render import cell, print_table

    names = list(dict.fromkeys(name for row in results.values() for name in row if not name.endswith("_uncalibrated")))
    rows = []
    for place, numbers in results.items():
        former = [numbers.get(f"{name}_uncalibrated") for name in names]
        before = ["" if value is None else f"{value:.4g} -> " for value in former]
        after = [f"{numbers[name]:.4g}" if name in numbers else "" for name in names]
        rows.append([place, *map("".join, zip(before, after, strict=True))])
    heads = [Column(cell(name.replace("_", " ")), overflow="fold") for name in names]
    print_table([Column("", no_wrap=True), *heads], rows)
