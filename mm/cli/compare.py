"""Rank the runs of a folder, with mean and deviation over seeds.

mm compare outputs/SWEEP ... [metrics=test/accuracy,val/loss]: of a folder of runs, or of some runs; the first metric
ranks. Runs of different verbs, or on different data, are ranked apart.
"""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from statistics import mean, stdev
from typing import Any, NamedTuple

from mm.messages import cell, near, plain
from mm.metrics.directions import DIRECTIONS, known_direction

IGNORED = ("seed", "run", "resume", "paths.outputs")  # overrides in which runs of one row may differ


class Result(NamedTuple):
    """One finished run."""

    folder: str  # below the one that was asked for
    kind: str  # verb and data: what must be the same for runs to be comparable
    overrides: tuple[str, ...]  # but those that are ignored
    metrics: dict[str, float]
    # Metric -> whether higher is better, as the run has written it; none of an old run.
    directions: dict[str, bool] = {}  # noqa: RUF012


def main(argv: list[str]) -> None:
    folders, metrics = arguments(argv)
    folder = folders[0] if len(folders) == 1 else Path(os.path.commonpath(folders))
    files = list(dict.fromkeys(file for one in folders for file in begun(one)))  # one may lie in another
    runs = list(results(folder, files))
    if not runs:
        raise ValueError(f"{', '.join(map(str, folders))}: no run below it has a metrics.json yet")
    known = dict.fromkeys(name for run in runs for name in run.metrics)
    for name in metrics:
        if name not in known:
            raise ValueError(f"metrics={name}: no run below {folder} has it{near(name, known)}")
    kinds = sorted({run.kind for run in runs})
    for kind in kinds:
        alike = [run for run in runs if run.kind == kind]
        if len(kinds) > 1:
            print(f"{plain(kind)}:")
        show(alike, [name for name in metrics if any(name in run.metrics for run in alike)] or default_metrics(alike))
    left = [  # embed leaves no metrics
        shown(file.parent, folder)
        for file in files
        if not file.with_name("metrics.json").exists() and verb_of(file.read_text(encoding="utf-8")) != "embed"
    ]
    if left:
        print(f"not finished: {', '.join(map(plain, left))}")


def arguments(argv: list[str]) -> tuple[list[Path], list[str]]:
    """`outputs/SWEEP ... [metrics=test/accuracy,val/loss]`; the first metric ranks, the best run first."""
    folders = [a for a in argv if "=" not in a or Path(a).is_dir()]  # a sweep's folder may be called lr=0.1
    options = dict(a.split("=", 1) for a in argv if a not in folders)
    unknown = set(options) - {"metrics"}
    if not folders or unknown:
        raise ValueError("usage: mm compare outputs/SWEEP ... [metrics=test/accuracy,val/loss]")
    for folder in folders:
        if not Path(folder).is_dir():
            raise ValueError(f"no folder {folder}")
    metrics = [name for name in options.get("metrics", "").split(",") if name]
    return [Path(folder) for folder in dict.fromkeys(folders)], metrics


def begun(folder: Path) -> list[Path]:
    """overrides.yaml of every run below the folder, jobs 2 and 10 in this order."""
    return sorted(folder.rglob("overrides.yaml"), key=lambda f: [(p.zfill(9) if p.isdigit() else p) for p in f.parts])


def results(folder: Path, files: Iterable[Path]) -> Iterable[Result]:
    """Every finished run. files: their overrides.yaml, below the folder."""
    import yaml

    for file in files:
        metrics = file.with_name("metrics.json")
        if not metrics.exists():
            continue
        text = file.read_text(encoding="utf-8")
        overrides = dict(o.lstrip("+~-").split("=", 1) for o in yaml.safe_load(text) if "=" in o)
        config = file.with_name("config.yaml")  # a training run leaves it
        data = yaml.safe_load(config.read_text(encoding="utf-8"))["datamodule"] if config.exists() else None
        kept = tuple(o for o in yaml.safe_load(text) if o.split("=", 1)[0].lstrip("+~") not in IGNORED)
        read = about(data) if data else overrides.get("datamodule.path") or overrides.get("datamodule")
        yield Result(
            shown(file.parent, folder),
            f"{verb_of(text)} on {read}",
            kept,
            json.loads(metrics.read_text(encoding="utf-8")),
            read_directions(metrics.with_name(DIRECTIONS)),
        )


def read_directions(file: Path) -> dict[str, bool]:
    """Read which metrics of a run are better when higher; nothing where it is an old run, or not what it should be."""
    found = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return {name: x for name, x in found.items() if isinstance(x, bool)} if isinstance(found, dict) else {}


def higher_is_better(name: str, runs: Iterable[Result]) -> bool:
    """Return a metric's direction: what a run has written, else what is known of the name, else True."""
    for run in runs:
        if name in run.directions:
            return run.directions[name]
    return known_direction(name) is not False


def verb_of(overrides: str) -> str:
    """The first line of an overrides.yaml says it."""
    return overrides.splitlines()[0].removeprefix("# mm ") if overrides.startswith("# mm ") else "train"


def about(data: dict[str, Any]) -> str:
    """Which data a finished config reads: the datamodule, and its file or folder."""
    return " ".join(str(x) for x in (data["_target_"].rpartition(".")[2], data.get("path")) if x)


def shown(folder: Path, below: Path) -> str:
    """A run's name below the folder that was asked for."""
    return str(folder.relative_to(below)) if folder != below else folder.name


def default_metrics(runs: list[Result]) -> list[str]:
    """The test metrics of the whole model, but counts; where nothing was tested, whatever there is."""
    names = [n for run in runs for n in run.metrics if n.startswith("test/") and n.count("/") == 1]
    plain = [n for n in names if not n.endswith(("_micro", "_macro", "_weighted", "/rows"))]
    found = sorted(dict.fromkeys(plain or names), key=lambda n: not n.endswith("accuracy"))
    return (found or sorted({n for run in runs for n in run.metrics}))[:4]


def show(runs: list[Result], metrics: list[str]) -> None:
    """A row per setting: what differs, its runs, mean and deviation of each metric."""
    from rich.console import Console
    from rich.table import Column, Table

    groups: dict[tuple[str, ...], list[Result]] = {}
    for run in runs:
        groups.setdefault(run.overrides, []).append(run)
    common = set.intersection(*(set(overrides) for overrides in groups))
    lower = not higher_is_better(metrics[0], runs)
    missing = float("inf") if lower else float("-inf")

    def rank(item: tuple[tuple[str, ...], list[Result]]) -> float:
        values = [run.metrics.get(metrics[0]) for run in item[1]]
        return mean(missing if value is None else value for value in values)

    table = Table("setting", "runs", *(Column(cell(name)) for name in metrics))
    for overrides, group in sorted(groups.items(), key=rank, reverse=not lower):
        setting = " ".join(o for o in overrides if o not in common) or ("as above" if common else "(defaults)")
        names = f"{len(group)}: {', '.join(run.folder for run in group)}"
        table.add_row(cell(setting), cell(names), *(spread(group, name) for name in metrics))
    if common:
        print("all:", *map(plain, sorted(common)))
    Console(width=None if Console().is_terminal else 160).print(table)


def spread(group: list[Result], name: str) -> str:
    """Mean, and deviation where there are several values."""
    values = [value for run in group if (value := run.metrics.get(name)) is not None]
    if not values:
        return ""
    return f"{mean(values):.4f}" + (f" ± {stdev(values):.4f}" if len(values) > 1 else "")
