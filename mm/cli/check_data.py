"""Read every row of a data set and list every cell that can't be read; exit status 2 if there is one."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from mm.cli._verb import run_verb
from mm.files import shown
from mm.messages import plain

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from mm.data.checking import DataReport

LONGEST = 200  # faults that are printed; errors.csv lists all


def main(argv: list[str]) -> None:
    """Print every fault. Raise SystemExit(2) if there is one."""
    faults: list[int] = []
    run_verb("check_data", argv, "mm.assembly.data_check:check_data_config", partial(print_faults, faults))
    if any(faults):
        raise SystemExit(2)


def print_faults(faults: list[int], report: "DataReport", cfg: "DictConfig", folder: Path) -> None:
    """Print the faults and note how many there are."""
    from mm.cli._render import print_table

    faults.append(len(report.faults))
    print(plain(report.summary()))
    if report.passed:
        return
    table = report.table()
    print_table(table.columns, table.rows[:LONGEST])
    if len(report.faults) > LONGEST:
        print(f"{len(report.faults) - LONGEST:,} more are in the file")
    print(plain(f"errors  {shown(folder / 'errors.csv')}"))
    print("Correct them, or train with datamodule.on_error=drop (without these rows) or =missing (as empty cells).")
