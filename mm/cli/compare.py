"""Rank the runs of a folder, with mean and deviation over seeds.

mm compare outputs/SWEEP [metrics=test/accuracy,val/loss]: the first metric ranks.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from statistics import mean, stdev
from typing import NamedTuple

IGNORED = ("seed", "run", "resume", "paths.outputs")  # overrides in which runs of one row may differ


class Result(NamedTuple):
    """One finished run."""

    overrides: tuple[str, ...]  # but those that are ignored
    metrics: dict[str, float]


def main(argv: list[str]) -> None:
    folder, metrics = arguments(argv)
    runs = list(results(folder))
    if not runs:
        raise ValueError(f"{folder}: no run below it has a metrics.json yet")
    show(runs, metrics or default_metrics(runs))


def arguments(argv: list[str]) -> tuple[Path, list[str]]:
    """`outputs/SWEEP [metrics=test/accuracy,val/loss]`; the first metric ranks, losses and errors ascending."""
    folders = [a for a in argv if "=" not in a]
    options = dict(a.split("=", 1) for a in argv if "=" in a)
    unknown = set(options) - {"metrics"}
    if len(folders) != 1 or unknown:
        raise ValueError("usage: mm compare outputs/SWEEP [metrics=test/accuracy,val/loss]")
    if not Path(folders[0]).is_dir():
        raise ValueError(f"no folder {folders[0]}")
    return Path(folders[0]), [name for name in options.get("metrics", "").split(",") if name]


def results(folder: Path) -> Iterable[Result]:
    """Every finished run below the folder."""
    import yaml

    for file in sorted(folder.rglob("metrics.json")):
        overrides = yaml.safe_load((file.parent / "overrides.yaml").read_text())
        kept = tuple(o for o in overrides if o.split("=", 1)[0].lstrip("+~") not in IGNORED)
        yield Result(kept, json.loads(file.read_text()))


def default_metrics(runs: list[Result]) -> list[str]:
    """The test metrics of the whole model, but counts."""
    names = [n for run in runs for n in run.metrics if n.startswith("test/") and n.count("/") == 1]
    plain = [n for n in names if not n.endswith(("_micro", "_macro", "_weighted", "/rows"))]
    return sorted(dict.fromkeys(plain or names), key=lambda n: not n.endswith("accuracy"))[:4]


def show(runs: list[Result], metrics: list[str]) -> None:
    """A row per setting: what differs, how many seeds, mean and deviation of each metric."""
    from rich.console import Console
    from rich.table import Table

    groups: dict[tuple[str, ...], list[Result]] = {}
    for run in runs:
        groups.setdefault(run.overrides, []).append(run)
    common = set.intersection(*(set(overrides) for overrides in groups)) if len(groups) > 1 else set()
    lower = metrics[0].endswith(("loss", "error", "mae", "rmse", "seconds"))
    missing = float("inf") if lower else float("-inf")

    def rank(item: tuple[tuple[str, ...], list[Result]]) -> float:
        values = [run.metrics.get(metrics[0]) for run in item[1]]
        return mean(missing if value is None else value for value in values)

    table = Table("setting", "runs", *metrics)
    for overrides, group in sorted(groups.items(), key=rank, reverse=not lower):
        setting = " ".join(o for o in overrides if o not in common) or "(defaults)"
        table.add_row(setting.replace("[", r"\["), str(len(group)), *(spread(group, name) for name in metrics))
    if common:
        print("all:", *sorted(common))
    Console(width=None if Console().is_terminal else 160).print(table)


def spread(group: list[Result], name: str) -> str:
    """Mean, and deviation where there are several values."""
    values = [value for run in group if (value := run.metrics.get(name)) is not None]
    if not values:
        return ""
    return f"{mean(values):.4f}" + (f" ± {stdev(values):.4f}" if len(values) > 1 else "")
