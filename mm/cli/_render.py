"""Print results: tables of rich, notes, the files of a run, and the commands that may follow."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mm.files import shown
from mm.messages import plain
from mm.runs.card import format_number
from mm.runs.summary import data_notes, table_rows

if TYPE_CHECKING:
    from omegaconf import DictConfig
    from rich.console import Console
    from rich.text import Text

    from mm.assembly.applied import Applied
    from mm.assembly.diagnosis import DiagnosisReport
    from mm.assembly.model_data import TestReport
    from mm.evaluation import RobustnessReport
    from mm.retrieval import Hit
    from mm.runs.compare import Ranking, Setting

WIDE = 250  # columns of a table of results in a file


def cell(text: Any) -> "Text":
    """Return a text for rich, which then interprets neither `[markup]` nor `:emoji:` in it."""
    from rich.text import Text

    return Text(plain(text))


def open_console(width: int) -> "Console":
    """Return a console, of a width where the output is no terminal."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else width)


def print_table(columns: Sequence[Any], rows: Sequence[Sequence[Any]], width: int = 160, title: str = "") -> None:
    """Print a table.

    Args:
        columns: The headers: texts, or columns of rich.
        rows: The cells; texts are printed as they stand.
        width: Columns of letters where the output is no terminal.
        title: A line above the table.
    """
    from rich.table import Column, Table

    heads = [column if isinstance(column, Column) else Column(cell(column)) for column in columns]
    table = Table(*heads, title=title or None)
    for row in rows:
        table.add_row(*map(cell, row))
    open_console(width).print(table)


def print_results(
    results: Mapping[str, Any],
    heads: Sequence[str],
    folder: Path,
    saved: Mapping[str, Path],
    commands: Sequence[str],
    notes: Sequence[str] = (),
) -> None:
    """Print a table of the test, notes, the files, and the commands that may follow.

    Args:
        results: Name to number.
        heads: Names of the heads; "" of a model without any.
        folder: The run folder, which is the last line.
        saved: Kind of each file to its path.
        commands: What to type next.
        notes: Sentences that are printed above it.
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
    for line in notes:
        console.print(cell(line), soft_wrap=True)
    if commands:
        console.print("next:", highlight=False)
        for line in commands:
            console.print(cell(f"  {line}"), soft_wrap=True)
    print(shown(folder))


def print_test(report: "TestReport", cfg: "DictConfig", folder: Path) -> None:
    """Print the metrics of a data set."""
    if report.robustness is not None:
        print_curves(report.robustness, folder / "robustness.csv")
    print_few_shot(report.metrics)
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


def print_faults(done: "Applied[Any]") -> None:
    """Print how many rows could not be read as a whole, where there are some."""
    if "errors" in done.files:
        where = plain(shown(done.files["errors"]))
        print(f"rows that could not be read as a whole: {done.faulty_rows}, told in {where}")


def print_ranking(ranking: "Ranking") -> None:
    """Print a row for each setting: what differs, its runs, mean and deviation of each metric."""
    rows = []
    for setting in ranking.settings:
        label = " ".join(setting.overrides) or ("as above" if ranking.common else "(defaults)")
        names = f"{len(setting.folders)}: {', '.join(setting.folders)}"
        rows.append([label, names, *(mean_and_std(setting, name) for name in ranking.metrics)])
    if ranking.common:
        print("all:", *map(plain, ranking.common))
    if set(ranking.averaged) - {"seed"}:
        print("averaged over:", *map(plain, ranking.averaged))
    print_table(["setting", "runs", *ranking.metrics], rows)


def mean_and_std(setting: "Setting", metric: str) -> str:
    """Return the mean of a metric, and its deviation where there are several values."""
    average, deviation = setting.mean(metric), setting.deviation(metric)
    if average is None:
        return ""
    return f"{average:.4f}" + (f" ± {deviation:.4f}" if deviation is not None else "")


def print_hits(hits: Sequence["Hit"]) -> None:
    """Print a table of items, the nearest first."""
    rows = [(rank, h.id, h.input, f"{h.similarity:.4f}", h.source or "") for rank, h in enumerate(hits, 1)]
    print_table(["rank", "id", "input", "similarity", "source"], rows)


def print_diagnosis(report: "DiagnosisReport") -> None:
    """Print a few lines per batch that was not finite, and a table of what each input is worth."""
    for batch in report.batches:
        if batch.reason:
            print(f"{batch.file}: {batch.reason}")
            continue
        print(f"{batch.file}: {batch.quantity} was not finite; {batch.rows} rows")
        module = f"first in {plain(batch.module)}" if batch.module else "every module's output is finite when replayed"
        print(f"  {module}")
        some = batch.faulty and len(batch.faulty) < batch.rows
        names = "\n  ".join(map(plain, batch.faulty)) if some else "every row" if batch.faulty else "no row"
        print(f"  not finite when computed alone: {names}")
    if report.source is None:
        print(report.reason)
        return
    print(f"{plain(shown(report.source))}, on training rows that have the input and another one:")
    table = report.table()
    print_table(table.columns, table.rows, 120)
    for name, reason in report.dead.items():
        hint = "Is its column right, its encoder frozen, its learning rate too small?"
        print(f"'{plain(name)}' looks dead: {reason}. {hint}")
    if not any(one.rows for one in report.influences.values()):
        print("none of these rows has two inputs: what one is worth beside the others can't be said")
    elif not report.dead:
        print("every input is alive")
