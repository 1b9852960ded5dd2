"""Fit classical models of scikit-learn in seconds, which a trained model should beat."""

from pathlib import Path
from typing import TYPE_CHECKING

from mm.cli._verb import run_verb
from mm.files import shown
from mm.messages import plain

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from mm.baselines import BaselineReport


def main(argv: list[str]) -> None:
    run_verb("baseline", argv, "mm.assembly.baselines:baseline_config", print_baseline)


def print_baseline(report: "BaselineReport", cfg: "DictConfig", folder: Path) -> None:
    """Print a row per model, what was not done, and the run folder."""
    from mm.cli._render import print_table
    from mm.reports import format_cell

    table = report.table()
    if table.rows:
        print_table(table.columns, [[format_cell(one) for one in row] for row in table.rows], 200)
    for line in report.notes:
        print(plain(line))
    print(shown(folder))
