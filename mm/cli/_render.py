"""Print results: tables of rich, notes, the files of a run, and what to type next."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mm.files import shown
from mm.messages import cell, plain
from mm.runs.card import format_number
from mm.runs.summary import data_notes, table_rows

if TYPE_CHECKING:
    from rich.console import Console

    from mm.assembly.model_data import TestReport
    from mm.data.module import DataModule
    from mm.evaluation import RobustnessReport

WIDE = 250  # columns of a table of results in a file


def open_console(width: int) -> "Console":
    """Return a console, of a width where the output is no terminal."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else width)


def print_table(columns: Sequence[Any], rows: Sequence[Sequence[Any]], width: int = 160, title: str = "") -> None:
    """Print a table.

    Args:
        columns: The headers: texts or columns of rich.
        rows: The cells; texts are printed as they stand.
        width: Columns of letters where the output is no terminal.
        title: A line above the table.
    """
    from rich.table import Table

    table = Table(*columns, title=title or None)
    for row in rows:
        table.add_row(*map(cell, row))
    open_console(width).print(table)


def print_results(
    results: Mapping[str, Any], heads: Sequence[str], folder: Path, saved: Mapping[str, Path], commands: Sequence[str]
) -> None:
    """Print a table of the test, notes, where everything was saved, and what to type next.

    Args:
        results: Name to number.
        heads: Names of the heads; "" of a model without any.
        folder: The run folder, which is the last line.
        saved: Kind of each file to its path.
        commands: What to type next.
    """
    from rich.table import Column, Table

    console = open_console(WIDE)
    for head in heads:
        rows = table_rows(results, f"{head}/" if len(heads) > 1 else "")
        if rows:
            metrics = list(dict.fromkeys(m for row in rows.values() for m in row))
            folded = [Column(cell(metric), overflow="fold") for metric in metrics]  # nothing is cut on a terminal
            table = Table(Column(cell("" if len(heads) == 1 else head), no_wrap=True), *folded)
            for place, row in rows.items():
                table.add_row(cell(place), *(format_number(row.get(m)) for m in metrics))
            console.print(table)
    for line in data_notes(results):
        console.print(cell(line), soft_wrap=True)
    wide = max((len(kind) for kind in saved), default=0)
    for kind, path in saved.items():
        console.print(cell(f"{kind:{wide}}  {shown(path)}"), soft_wrap=True)
    if commands:
        console.print("next:", highlight=False)
        for line in commands:
            console.print(cell(f"  {line}"), soft_wrap=True)
    print(shown(folder))


def print_test(report: "TestReport | None", folder: Path) -> None:
    """Print what was measured on the rows of a data set; nothing in other processes than the first one."""
    if report is None:
        return
    if report.summary:
        print(plain(report.summary))
    print_results(report.metrics, list(report.heads) or [""], folder, report.files, [])


def print_few_shot(results: Mapping[str, float]) -> None:
    """Print a line for each few-shot accuracy, with its standard deviation over draws."""
    for name, value in results.items():
        if "/few_shot/" in name and not name.endswith("_std"):
            deviation = f" ± {results[f'{name}_std']:.4f}" if f"{name}_std" in results else ""
            print(f"{plain(name):40} {value:.4f}{deviation}")


def print_curves(report: "RobustnessReport", path: Path) -> None:
    """Print a line per curve: the value at the first and the last severity, relative and effective robustness.

    Args:
        report: What was measured.
        path: The file of the curves.
    """
    several = len({head for head, *_ in report.curves}) > 1
    kinds = [kind for kind in ("relative", "effective") if any(key.endswith(f"/{kind}") for key in report.metrics)]
    rows = []
    for (head, metric, name, corruption), values in report.curves.items():
        place = f"robustness[{name}]{f'/{head}' if several else ''}/{corruption}"
        numbers = [values[0], values[-1], *(report.metrics[f"{place}/{kind}"] for kind in kinds)]
        about = (name, corruption, f"{head}/{metric}" if several else metric)
        rows.append([*about, *(f"{number:.4f}" for number in numbers)])
    columns = ["input", "corruption", "metric", "clean", "worst", *kinds]
    print_table(columns, rows, 120, f"robustness, {report.num_rows} rows")
    print(f"curves       {plain(shown(path))}")


def print_faults(data: "DataModule", folder: Path) -> None:
    """Write the rows that could not be read as a whole into the run folder, and print how many there are."""
    if data.faults:
        data.write_errors(folder / "errors.csv")
        wrong = len({row for row, _ in data.faults})
        print(f"rows that could not be read as a whole: {wrong}, told in {plain(shown(folder / 'errors.csv'))}")
