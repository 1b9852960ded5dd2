"""Rank the runs of a folder, with mean and deviation over seeds, splits and folds.

mm compare outputs/SWEEP ... [metrics=test/accuracy,val/loss] [average=datamodule.path]: of a folder of runs, or of some
runs; the first metric ranks. Runs of different verbs, or on different data, are ranked apart. Values of seed,
datamodule.split.seed and datamodule.columns.split are averaged, and those of the keys that `average` names.
"""

from pathlib import Path

from mm.messages import cell, plain
from mm.runs.compare import Ranking, Setting, compare

USAGE = "usage: mm compare outputs/SWEEP ... [metrics=test/accuracy,val/loss] [average=datamodule.path]"


def main(argv: list[str]) -> None:
    """Compare, and print a table for each verb and data set."""
    report = compare(**arguments(argv))
    for ranking in report.rankings:
        if len(report.rankings) > 1:
            print(f"{plain(ranking.kind)}:")
        print_ranking(ranking)
    if report.unfinished:
        print(f"not finished: {', '.join(map(plain, report.unfinished))}")


def arguments(argv: list[str]) -> dict[str, list[str]]:
    """Return the arguments of `compare`. Raises ValueError for options that are not known."""
    folders = [a for a in argv if "=" not in a or Path(a).is_dir()]  # a sweep's folder may be called lr=0.1
    options = dict(a.split("=", 1) for a in argv if a not in folders)
    if not folders or set(options) - {"metrics", "average"}:
        raise ValueError(USAGE)
    lists = {key: [name for name in value.split(",") if name] for key, value in options.items()}
    return {"folders": list(dict.fromkeys(folders)), **lists}


def print_ranking(ranking: Ranking) -> None:
    """Print a row for each setting: what differs, its runs, mean and deviation of each metric."""
    from rich.console import Console
    from rich.table import Column, Table

    table = Table("setting", "runs", *(Column(cell(name)) for name in ranking.metrics))
    for setting in ranking.settings:
        label = " ".join(setting.overrides) or ("as above" if ranking.common else "(defaults)")
        names = f"{len(setting.folders)}: {', '.join(setting.folders)}"
        table.add_row(cell(label), cell(names), *(mean_and_std(setting, name) for name in ranking.metrics))
    if ranking.common:
        print("all:", *map(plain, ranking.common))
    if set(ranking.averaged) - {"seed"}:
        print("averaged over:", *map(plain, ranking.averaged))
    Console(width=None if Console().is_terminal else 160).print(table)


def mean_and_std(setting: Setting, metric: str) -> str:
    """Return the mean of a metric, and its deviation where there are several values."""
    average, deviation = setting.mean(metric), setting.deviation(metric)
    if average is None:
        return ""
    return f"{average:.4f}" + (f" ± {deviation:.4f}" if deviation is not None else "")
