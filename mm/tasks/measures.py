"""Metrics that all tasks share, the names under which they are logged, and the choice of subsets of the inputs."""

import inspect
import warnings
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from typing import Any, get_origin

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn
from torchmetrics import Metric, SumMetric

from mm.reports import HasFigure

Part = tuple[str, ...]  # a subset of the inputs
CHOICES = ("auto", "all", "single", "none")
ALL_UP_TO = 4  # number of inputs up to which "auto" evaluates every subset
COUNTS = ("support", "rows")  # counts, which do not describe quality


def positive(count: Tensor) -> Tensor:
    """Return counts as divisors, with one in place of zeros. Counts may be sums of class weights."""
    return torch.where(count > 0, count, 1)


def mean_losses(
    place: str, losses: Mapping[str, tuple[Tensor, Tensor, float]], metric: str = "loss"
) -> dict[str, Tensor]:
    """Return mean losses by logged name: place/metric for the sum, and place/name/metric if there are several.

    Args:
        place: Prefix of the names, such as "train".
        losses: Name to total, count and weight.
        metric: Last part of the names.
    """
    means = {name: total / positive(count) for name, (total, count, _) in losses.items()}
    found = {f"{place}/{name}/{metric}": mean for name, mean in means.items()} if len(means) > 1 else {}
    if means:
        found[f"{place}/{metric}"] = torch.stack([losses[name][2] * mean for name, mean in means.items()]).sum()
    return found


class Mean(Metric):
    """Metric that divides a sum by a count.

    It replaces MeanMetric of torchmetrics 1.9, which either hides NaN or ignores weights.
    """

    full_state_update = False
    higher_is_better = False
    total: Tensor
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.zeros(()), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros(()), dist_reduce_fx="sum")

    def update(self, total: Tensor, count: Tensor) -> None:
        self.total += total.detach()
        self.count += count

    def compute(self) -> Tensor:
        return self.total / positive(self.count)


def scores(metrics: Mapping[str, Metric]) -> nn.ModuleDict:
    """Return new metrics of one head, with its loss and the number of evaluated rows."""
    own = {"loss": Mean(), "rows": SumMetric(nan_strategy="disable")}
    return nn.ModuleDict(own | {name: metric.clone() for name, metric in metrics.items()})


def metric_names(name: str, metric: Metric) -> list[str]:
    """Return the names under which a metric is logged in validation: its own, or those of its several values."""
    if not isinstance(metric, HasFigure):
        return [name]
    return [key for key in metric.names() if "/" not in key]


def metric_directions(name: str, metric: Metric) -> dict[str, bool | None]:
    """Return for every value of a metric whether higher is better; None for counts.

    Args:
        name: Name of the metric in its head.
        metric: The metric.
    """
    names = metric.names() if isinstance(metric, HasFigure) else [name]
    return {key: None if key.startswith(COUNTS) else metric.higher_is_better for key in names}


def monitored_names(name: str, metric: Metric) -> list[str]:
    """Return the names of a metric that can be monitored; none if its values are a mapping whose keys are not known."""
    if not isinstance(metric, HasFigure) and computes_mapping(metric):
        return []
    return metric_names(name, metric)


def computes_mapping(metric: Metric) -> bool:
    """Return whether the signature of a metric's `compute` states that it returns several values by name."""
    hint = inspect.get_annotations(type(metric).compute).get("return")
    if isinstance(hint, str):
        return hint.partition("[")[0].rpartition(".")[2] in ("dict", "Dict", "Mapping")
    origin = get_origin(hint) or hint
    return isinstance(origin, type) and issubclass(origin, Mapping)


def check_metric_names(head: str, metrics: Mapping[str, Metric]) -> None:
    """Check that no two metrics of a head have values of the same name, as far as these are known before a training.

    Args:
        head: Name of the head.
        metrics: Metric name to metric.

    Raises:
        ValueError: If two metrics have a value of the same name.
    """
    sources: dict[str, str] = {}
    for name, metric in metrics.items():
        if isinstance(metric, HasFigure) or not computes_mapping(metric):
            check_value_names(name, metric_directions(name, metric), sources, f"model.heads.{head}.")


def check_value_names(name: str, values: Iterable[str], sources: dict[str, str], place: str = "") -> None:
    """Check that no other metric has a value of the same name as one of this metric.

    Args:
        name: Name of the metric.
        values: Names of its values.
        sources: Name of each value to the metric that computes it; those of this metric are added.
        place: Prefix of the key `metrics`, for the message.

    Raises:
        ValueError: If there is such a value; the message names both metrics.
    """
    for value in values:
        if value in sources:
            raise ValueError(
                f"{place}metrics: '{sources[value]}' and '{name}' both compute a value named '{value}'; give one "
                "of the metrics another name, or its value another key"
            )
        sources[value] = name


def read_scores(measured: Mapping[str, Metric], draw: bool) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Compute and reset the metrics of one head, over all processes.

    Args:
        measured: Metric name to metric.
        draw: Whether to draw figures.

    Returns:
        The values and the figures by name; empty if no process had a labelled row.

    Raises:
        ValueError: If two metrics compute values of the same name.
    """
    rows = measured["rows"].compute()
    values, figures = ({"rows": rows} if rows else {}), {}
    sources = dict.fromkeys(values, "rows")  # name of a value to the name of the metric that computes it
    for name, metric in measured.items():
        assert isinstance(metric, Metric)
        if rows and name != "rows" and not (name == "loss" and not metric.update_called):
            with warnings.catch_warnings():  # a process without labelled rows still has to take part
                warnings.filterwarnings("ignore", "The ``compute`` method of metric", UserWarning)
                try:
                    value = metric.compute()
                except ValueError as error:  # for example R2 of a single row
                    rank_zero_warn(f"{name} of {int(rows)} rows: {error}")
                    metric.reset()
                    continue
            computed = value if isinstance(value, dict) else {name: value}
            check_value_names(name, computed, sources)
            values |= computed
            if draw and isinstance(metric, HasFigure):
                with metric.sync_context():
                    figures |= drawn(name, metric)
        metric.reset()
    return values, figures


def drawn(name: str, metric: HasFigure) -> dict[str, Any]:
    """Return the figure of a metric by its name; empty if it has none, or if drawing fails, which only warns."""
    try:
        figure = metric.figure()
    except Exception as error:  # of matplotlib, or of a metric of the user's own
        rank_zero_warn(f"{name}: the figure could not be drawn: {type(error).__name__}: {error}")
        return {}
    return {} if figure is None else {name: figure}


def subsets(inputs: list[str]) -> list[tuple[str, ...]]:
    """Return all non-empty subsets of the inputs: the complete set first, then the smaller ones by size."""
    smaller = [part for size in range(1, len(inputs)) for part in combinations(inputs, size)]
    return [tuple(inputs), *smaller]


def choose_subsets(option: str, choice: bool | str | Sequence[str | Sequence[str]], inputs: list[str]) -> list[Part]:
    """Return the subsets of the inputs to evaluate, with the complete set first.

    Args:
        option: Name of the option, for error messages.
        choice: "all" for every subset; "single" for each input alone; "none" or False for the complete set only; "auto"
            or True for every subset of up to 4 inputs and, with more inputs, each input alone and all inputs except one
            (n inputs have 2^n - 1 subsets, 1,023 if n = 10); or a list of subsets, each `text+audio` or [text, audio].
        inputs: Inputs of the model.

    Raises:
        ValueError: If the choice is none of these, or if a subset is empty or has an unknown input.
    """
    whole = tuple(inputs)
    if isinstance(choice, str | bool):
        name = {True: "auto", False: "none"}.get(choice, choice) if isinstance(choice, bool) else choice
        if name not in CHOICES:
            raise ValueError(
                f"task.{option}: got '{choice}', wanted one of {', '.join(CHOICES)}, or a list of subsets such as "
                f"[{'+'.join(inputs[:2])}]"
            )
        if name == "all" or (name == "auto" and len(inputs) <= ALL_UP_TO):
            return subsets(inputs)
        alone = [(one,) for one in inputs] if name != "none" else []
        without = [tuple(x for x in inputs if x != one) for one in inputs] if name == "auto" else []
        return list(dict.fromkeys([whole, *alone, *without]))
    found = [whole]
    for part in choice:
        names = part.split("+") if isinstance(part, str) else list(part)
        unknown = [one for one in names if one not in inputs]
        if unknown or not names:
            raise ValueError(
                f"task.{option}: got '{'+'.join(map(str, names))}', wanted inputs out of {', '.join(inputs)}, such as "
                f"{'+'.join(inputs[:2])}"
            )
        found.append(tuple(one for one in inputs if one in names))
    return list(dict.fromkeys(found))


def section(split: str, part: tuple[str, ...], inputs: list[str]) -> str:
    """Return the prefix of metric names: `test` for all inputs, else for example `test[text+audio]`."""
    return split if len(part) == len(inputs) else f"{split}[{'+'.join(part)}]"
