"""Comparison of runs: rank their settings by a metric, averaged over seeds and splits."""

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import yaml

from mm.files import whole
from mm.messages import near
from mm.reports import Report, Table
from mm.runs.directions import DIRECTIONS, known_direction
from mm.runs.folder import OVERRIDES, override_key

# Overrides in which runs of the same setting may differ: those of the run itself, and those that are averaged over.
IGNORED = ("run", "resume", "paths.outputs", "baseline")
AVERAGED = ("seed", "datamodule.seed", "datamodule.split.seed", "datamodule.columns.split")
# As `datamodule.test_fold` of a data module of one's own; and numbers of folds or splits in the names of files.
FOLD_KEY = re.compile(r"(?:^|[._])fold$")
FOLD_NUMBER = re.compile(r"(?i)((?:^|[^a-z])(?:fold|split|cv)[-_ ]?)\d+(?![0-9])")
PATH = "datamodule.path"
VERBS_WITHOUT_METRICS = ("embed",)


@dataclass(frozen=True)
class RunResult:
    """Result of one finished run.

    Attributes:
        folder: Name of the run folder, relative to the searched folder.
        kind: Verb and data of the run. Only runs of the same kind are compared.
        overrides: Overrides that define the setting of the run.
        metrics: Metric name to value.
        directions: Metric name to whether higher is better, as the run has recorded it; empty for runs of older
            versions.
        averaged: Overrides whose values are averaged over.
    """

    folder: str
    kind: str
    overrides: tuple[str, ...]
    metrics: Mapping[str, float]
    directions: Mapping[str, bool] = field(default_factory=dict)
    averaged: tuple[str, ...] = ()


@dataclass(frozen=True)
class Setting:
    """Runs with the same overrides.

    Attributes:
        overrides: Overrides that not all settings of the ranking share.
        folders: Names of the runs.
        values: Metric name to its values, one per run that has this metric.
    """

    overrides: tuple[str, ...]
    folders: tuple[str, ...]
    values: Mapping[str, Sequence[float]]

    def mean(self, metric: str) -> float | None:
        """Return the mean of a metric; None if no run has it."""
        return mean(self.values[metric]) if self.values[metric] else None

    def deviation(self, metric: str) -> float | None:
        """Return the standard deviation of a metric; None if fewer than two runs have it."""
        return stdev(self.values[metric]) if len(self.values[metric]) > 1 else None


@dataclass(frozen=True)
class Ranking:
    """Settings of one verb on one data set, the best first.

    Attributes:
        kind: Verb and data.
        metrics: Names of the compared metrics; the first one determines the order.
        common: Overrides that all settings share.
        averaged: Keys with several values that are averaged over.
        settings: The settings, the best first.
    """

    kind: str
    metrics: tuple[str, ...]
    common: tuple[str, ...]
    averaged: tuple[str, ...]
    settings: tuple[Setting, ...]


@dataclass(frozen=True, repr=False)
class ComparisonReport(Report):
    """Result of `compare`.

    Attributes:
        rankings: One ranking for each verb and data set.
        unfinished: Folders of runs that have no metrics yet.
    """

    rankings: tuple[Ranking, ...]
    unfinished: tuple[str, ...] = ()

    @property
    def metrics(self) -> dict[str, float]:  # type: ignore[override]
        """Return the mean of each metric of the best setting.

        If there are several rankings, the kind precedes the name, as in `train on X: test/f1`.
        """
        several = len(self.rankings) > 1
        return {
            f"{ranking.kind}: {name}" if several else name: value
            for ranking in self.rankings
            for name in ranking.metrics
            if (value := ranking.settings[0].mean(name)) is not None
        }

    def table(self) -> Table:
        """Return a row per setting: its overrides, its runs, and the mean and standard deviation of each metric."""
        names = list(dict.fromkeys(name for ranking in self.rankings for name in ranking.metrics))
        columns = ["on", "setting", "runs", *(column for name in names for column in (name, f"{name} ±"))]
        rows = []
        for ranking in self.rankings:
            for setting in ranking.settings:
                numbers = []
                for name in names:
                    known = name in ranking.metrics
                    numbers += [setting.mean(name), setting.deviation(name)] if known else [None, None]
                label = " ".join(setting.overrides) or ("as above" if ranking.common else "(defaults)")
                rows.append([ranking.kind, label, ", ".join(setting.folders), *numbers])
        return Table(columns, rows)

    def save(self, folder: str | Path) -> Path:
        """Write metrics.json and the table as comparison.csv into a folder."""
        folder = super().save(folder)
        with whole(folder / "comparison.csv") as part:
            part.write_text(self.table().to_csv(), encoding="utf-8")
        return folder


def compare(
    folders: str | Path | Sequence[str | Path], metrics: Sequence[str] = (), average: Sequence[str] = ()
) -> ComparisonReport:
    """Rank the runs below some folders, averaged over seeds, splits and folds.

    Runs of different verbs or on different data are ranked separately.

    Args:
        folders: A folder of runs, or several.
        metrics: Names such as `test/accuracy`; the first one determines the order. Default: the test metrics.
        average: Further config keys whose values are averaged over, such as `datamodule.path` if each part has a file.
            Seeds (`seed`, `datamodule.seed`, `datamodule.split.seed`), `datamodule.columns.split`, keys that end in
            `fold`, such as `datamodule.test_fold`, and the number of a fold in `datamodule.path`, such as
            `fold_1.csv`, are always averaged over.

    Returns:
        The rankings, and the runs that have not finished.

    Raises:
        ValueError: If a folder does not exist, if no run in it has finished, or if no run has one of the metrics.
    """
    paths = [Path(folders)] if isinstance(folders, str | Path) else [Path(folder) for folder in folders]
    for path in paths:
        if not path.is_dir():
            raise ValueError(f"no folder {path}")
    root = paths[0] if len(paths) == 1 else Path(os.path.commonpath(paths))
    files = list(dict.fromkeys(file for path in paths for file in find_runs(path)))  # a folder may contain another
    runs = list(read_results(root, files, (*AVERAGED, *average)))
    if not runs:
        raise ValueError(f"{', '.join(map(str, paths))}: no run below it has a metrics.json yet")
    known = dict.fromkeys(name for run in runs for name in run.metrics)
    for name in metrics:
        if name not in known:
            raise ValueError(f"metrics={name}: no run below {root} has it{near(name, known)}")
    rankings = []
    for kind in sorted({run.kind for run in runs}):
        alike = [run for run in runs if run.kind == kind]
        chosen = [name for name in metrics if any(name in run.metrics for run in alike)] or default_metrics(alike)
        rankings.append(rank_settings(alike, chosen))
    left = [
        name_below(file.parent, root)
        for file in files
        if not file.with_name("metrics.json").exists()
        and verb_of(file.read_text(encoding="utf-8")) not in VERBS_WITHOUT_METRICS
    ]
    return ComparisonReport(tuple(rankings), tuple(left))


def find_runs(folder: Path) -> list[Path]:
    """Return the paths of overrides.yaml of all runs below a folder, in numeric order of the jobs of a sweep."""
    return sorted(folder.rglob(OVERRIDES), key=lambda f: [(p.zfill(9) if p.isdigit() else p) for p in f.parts])


def read_results(folder: Path, files: Iterable[Path], averaged: Sequence[str] = AVERAGED) -> Iterator[RunResult]:
    """Yield the result of every finished run.

    Args:
        folder: A folder that contains all runs.
        files: Paths of the overrides.yaml of the runs.
        averaged: Config keys whose values are averaged over.
    """
    for file in files:
        metrics = file.with_name("metrics.json")
        if not metrics.exists():
            continue
        text = file.read_text(encoding="utf-8")
        words: list[str] = yaml.safe_load(text)
        typed = dict(o.lstrip("+~-").split("=", 1) for o in words if "=" in o)
        config = file.with_name("config.yaml")  # training runs write it
        data = yaml.safe_load(config.read_text(encoding="utf-8"))["datamodule"] if config.exists() else None
        whole_path = PATH not in averaged
        source = describe_data(data, whole_path) if data else typed.get(PATH) or typed.get("datamodule")
        source = FOLD_NUMBER.sub(r"\1*", str(source))
        keys = [(word, override_key(word.lstrip("-"))) for word in words]
        over = {word for word, key in keys if is_averaged(word, key, averaged)}
        yield RunResult(
            name_below(file.parent, folder),
            f"{verb_of(text)} on {source}",
            tuple(word for word, key in keys if key not in IGNORED and word not in over),
            json.loads(metrics.read_text(encoding="utf-8")),
            read_directions(metrics.with_name(DIRECTIONS)),
            tuple(word for word in words if word in over),
        )


def is_averaged(word: str, key: str, averaged: Sequence[str]) -> bool:
    """Return whether runs that differ in an override are averaged: it is a seed, a fold, or a file of a fold.

    Args:
        word: The override.
        key: Its key.
        averaged: Keys over whose values is averaged.
    """
    fold_file = key == PATH and FOLD_NUMBER.search(word.partition("=")[2]) is not None
    return key in averaged or FOLD_KEY.search(key) is not None or fold_file


def read_directions(file: Path) -> dict[str, bool]:
    """Read from a file whether a higher value of each metric is better.

    Args:
        file: Path of metrics.directions.json.

    Returns:
        Metric name to whether higher is better; empty if the file is missing, as in runs of older versions, or
        malformed.
    """
    found = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return {name: x for name, x in found.items() if isinstance(x, bool)} if isinstance(found, dict) else {}


def higher_is_better(name: str, runs: Iterable[RunResult]) -> bool:
    """Return whether a higher value of a metric is better.

    The record of the runs decides, then the name of the metric; the default is True.

    Args:
        name: Name of the metric.
        runs: The runs.
    """
    for run in runs:
        if name in run.directions:
            return run.directions[name]
    return known_direction(name) is not False


def verb_of(overrides: str) -> str:
    """Return the verb of a run, which is in the first line of its overrides.yaml.

    Args:
        overrides: Content of overrides.yaml.
    """
    return overrides.splitlines()[0].removeprefix("# mm ") if overrides.startswith("# mm ") else "train"


def describe_data(data: Mapping[str, Any], path: bool = True) -> str:
    """Return a short description of the data of a run: the data module and, with `path`, its file or folder.

    Args:
        data: The `datamodule` section of the run's config.
        path: Whether to add the path.
    """
    parts = (data["_target_"].rpartition(".")[2], data.get("path") if path else None)
    return " ".join(str(x) for x in parts if x)


def name_below(folder: Path, root: Path) -> str:
    """Return the name of a run folder relative to the searched folder."""
    return str(folder.relative_to(root)) if folder != root else folder.name


def default_metrics(runs: Sequence[RunResult]) -> list[str]:
    """Return the metrics that are compared by default, at most four.

    These are the test metrics of the complete model without counts, with accuracies first; for runs without test
    metrics, the first names in alphabetical order.
    """
    names = [n for run in runs for n in run.metrics if n.startswith("test/") and n.count("/") == 1]
    single = [n for n in names if not n.endswith(("_micro", "_macro", "_weighted", "/rows"))]
    found = sorted(dict.fromkeys(single or names), key=lambda n: not n.endswith("accuracy"))
    return (found or sorted({n for run in runs for n in run.metrics}))[:4]


def rank_settings(runs: Sequence[RunResult], metrics: Sequence[str]) -> Ranking:
    """Rank the settings of runs of one kind by the first of some metrics.

    Args:
        runs: The runs.
        metrics: Names of the compared metrics.
    """
    groups: dict[tuple[str, ...], list[RunResult]] = {}
    for run in runs:
        groups.setdefault(run.overrides, []).append(run)
    common = set.intersection(*(set(overrides) for overrides in groups))
    lower = not higher_is_better(metrics[0], runs)
    missing = float("inf") if lower else float("-inf")

    def score(item: tuple[tuple[str, ...], list[RunResult]]) -> float:
        values = [run.metrics.get(metrics[0]) for run in item[1]]
        return mean(missing if value is None else value for value in values)

    settings = [
        Setting(
            tuple(o for o in overrides if o not in common),
            tuple(run.folder for run in group),
            {name: [x for run in group if (x := run.metrics.get(name)) is not None] for name in metrics},
        )
        for overrides, group in sorted(groups.items(), key=score, reverse=not lower)
    ]
    words = sorted({word for run in runs for word in run.averaged})
    keys = [override_key(word) for word in words]
    averaged = tuple(dict.fromkeys(key for key in keys if keys.count(key) > 1))
    return Ranking(runs[0].kind, tuple(metrics), tuple(sorted(common)), averaged, tuple(settings))
