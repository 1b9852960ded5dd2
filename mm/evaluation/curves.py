"""Curves of metrics over the severity of a corruption: summary values, a CSV file and a figure."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mm.extras import require
from mm.files import whole
from mm.metrics import robustness

MISSING = "missing"  # name of the corruption that removes an input from a fraction of the rows
Curves = dict[tuple[str, str, str, str], list[float]]  # head, metric, input, corruption to a value per severity


def summarise_curves(
    severities: Sequence[float], ours: Curves, base: Curves, higher_is_better: Mapping[str, bool]
) -> dict[str, float]:
    """Summarise curves as relative robustness and, with a baseline, effective robustness.

    The names are robustness[INPUT]/CORRUPTION/relative and .../effective. The mean of an input over its corruptions is
    robustness[INPUT]/relative, and the mean over inputs is robustness/relative. Removing inputs has a separate mean,
    robustness/missing/relative. With several heads the names are robustness[INPUT]/HEAD/...

    Args:
        severities: Severities of the corruptions, from 0.
        ours: Curves of the model.
        base: Curves of the baseline; empty: there is no baseline.
        higher_is_better: Head to whether a higher value of its metric is better.
    """
    several = len({head for head, *_ in ours}) > 1
    found: dict[str, float] = {}
    means: dict[str, list[float]] = {}
    for (head, metric, name, corruption), values in ours.items():
        part = f"/{head}" if several else ""
        kinds = {"relative": robustness.relative(severities, values, higher_is_better[head])}
        if base:
            other = base[head, metric, name, corruption]
            kinds["effective"] = robustness.effective(severities, values, other, higher_is_better[head])
        for kind, value in kinds.items():
            found[f"robustness[{name}]{part}/{corruption}/{kind}"] = value
            mean = f"robustness{part}/{MISSING}/{kind}" if corruption == MISSING else f"robustness[{name}]{part}/{kind}"
            means.setdefault(mean, []).append(value)
    inner = {key: float(np.mean(values)) for key, values in means.items()}
    whole: dict[str, list[float]] = {}
    for key, value in inner.items():
        if "[" in key:
            whole.setdefault(f"robustness{key.partition(']')[2]}", []).append(value)
    return found | inner | {key: float(np.mean(values)) for key, values in whole.items()}


def write_curves(path: Path, severities: Sequence[float], ours: Curves, base: Curves) -> None:
    """Write a CSV file with one line per input, corruption, severity and metric, atomically."""
    several = len({head for head, *_ in ours}) > 1
    with whole(path) as part, part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["input", "corruption", "severity", "metric", "value", *(["baseline"] if base else [])])
        for key, values in ours.items():
            head, metric, name, corruption = key
            for i, (severity, value) in enumerate(zip(severities, values, strict=True)):
                told = f"{head}/{metric}" if several else metric
                writer.writerow([name, corruption, severity, told, value, *([base[key][i]] if base else [])])


def draw_curves(severities: Sequence[float], ours: Curves, base: Curves) -> Any:
    """Draw curves: a row of panels per head, a panel per input, and a line per corruption (dotted: the baseline)."""
    Figure = require("matplotlib.figure", "plot").Figure  # slow to import, and seldom drawn

    heads = list(dict.fromkeys((head, metric) for head, metric, *_ in ours))
    inputs = list(dict.fromkeys(name for *_, name, _ in ours))
    drawn = Figure(figsize=(1.5 + 3.6 * len(inputs), 0.8 + 3.6 * len(heads)), layout="constrained")
    panels = drawn.subplots(len(heads), len(inputs), sharex=True, sharey="row", squeeze=False)
    for row, (head, metric) in zip(panels, heads):
        for axes, name in zip(row, inputs):
            lines = {key[3]: values for key, values in ours.items() if key[:3] == (head, metric, name)}
            for i, (corruption, values) in enumerate(lines.items()):
                plain = corruption != MISSING
                look: dict[str, Any] = {"color": f"C{i}"} if plain else {"color": "black", "linestyle": "--"}
                axes.plot(severities, values, marker="o", markersize=3, label=corruption.replace("_", " "), **look)
                if base:
                    look["linestyle"] = ":"
                    axes.plot(severities, base[head, metric, name, corruption], linewidth=1.2, **look)
            axes.set_title(name, parse_math=False)
            axes.grid(alpha=0.3)
            if (head, metric) == heads[0]:
                axes.legend(fontsize=8, framealpha=0.7)
        row[0].set_ylabel(f"{head}: {metric}" if len(heads) > 1 else metric, parse_math=False)
    for axes in panels[-1]:
        axes.set_xlabel(f"severity ({MISSING}: part of the rows)")
    if base:
        drawn.suptitle("dotted: the baseline", fontsize=9)
    return drawn
