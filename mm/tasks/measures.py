"""What tasks measure with, and the names under which it is logged."""

import warnings
from collections.abc import Mapping
from itertools import combinations
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn
from torchmetrics import Metric, SumMetric

from mm.types import Drawn

COUNTS = ("support", "rows")  # numbers that tell how much was measured, not how well


def positive(count: Tensor) -> Tensor:
    """Counts to divide by: where nothing was counted, one. They may be fractions, as sums of class weights are."""
    return torch.where(count > 0, count, 1)


def mean_losses(
    place: str, losses: Mapping[str, tuple[Tensor, Tensor, float]], what: str = "loss"
) -> dict[str, Tensor]:
    """Means, by the names under which they are logged: place/what of all and, of several, place/name/what of each."""
    means = {name: total / positive(count) for name, (total, count, _) in losses.items()}
    found = {f"{place}/{name}/{what}": mean for name, mean in means.items()} if len(means) > 1 else {}
    if means:
        found[f"{place}/{what}"] = torch.stack([losses[name][2] * mean for name, mean in means.items()]).sum()
    return found


class Mean(Metric):
    """Sum over count. Not torchmetrics' MeanMetric: it hides a NaN, or, told not to, ignores weights (1.9)."""

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
    """Fresh metrics of one head, its loss, and how many rows were measured."""
    own = {"loss": Mean(), "rows": SumMetric(nan_strategy="disable")}
    return nn.ModuleDict(own | {name: metric.clone() for name, metric in metrics.items()})


def metric_names(name: str, metric: Metric) -> list[str]:
    """Under which names a metric is logged at validation: its own, or, of one that gives several numbers, theirs."""
    if not isinstance(metric, Drawn):
        return [name]
    return [key for key in metric.names() if "/" not in key]


def metric_directions(name: str, metric: Metric) -> dict[str, bool | None]:
    """Return of every number that a metric computes whether a higher one is better, None for counts.

    Args:
        name: The metric's name in its head.
        metric: The metric.
    """
    names = metric.names() if isinstance(metric, Drawn) else [name]
    return {key: None if key.startswith(COUNTS) else metric.higher_is_better for key in names}


def read_scores(measured: Mapping[str, Metric], draw: bool) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Compute over all processes, draw, reset. Nothing where no process saw a labelled row."""
    rows = measured["rows"].compute()
    values, figures = ({"rows": rows} if rows else {}), {}
    for name, metric in measured.items():
        assert isinstance(metric, Metric)
        if rows and name != "rows" and not (name == "loss" and not metric.update_called):
            with warnings.catch_warnings():  # a process none of whose rows are labelled still has to take part
                warnings.filterwarnings("ignore", "The ``compute`` method of metric", UserWarning)
                try:
                    value = metric.compute()
                except ValueError as error:  # R2 of a single row, say
                    rank_zero_warn(f"{name} of {int(rows)} rows: {error}")
                    metric.reset()
                    continue
            values |= value if isinstance(value, dict) else {name: value}
            if draw and isinstance(metric, Drawn):
                with metric.sync_context():
                    figures |= drawn(name, metric)
        metric.reset()
    return values, figures


def drawn(name: str, metric: Drawn) -> dict[str, Any]:
    """The figure of a metric, by its name; none where there is none. A figure that fails costs no number."""
    try:
        figure = metric.figure()
    except Exception as error:  # of matplotlib, or of a metric of the user's own
        rank_zero_warn(f"{name}: the figure could not be drawn: {type(error).__name__}: {error}")
        return {}
    return {} if figure is None else {name: figure}


def subsets(inputs: list[str]) -> list[tuple[str, ...]]:
    """All of them first, then every smaller subset, single ones first."""
    smaller = [part for size in range(1, len(inputs)) for part in combinations(inputs, size)]
    return [tuple(inputs), *smaller]


def section(split: str, part: tuple[str, ...], inputs: list[str]) -> str:
    """`test` for all inputs, else `test[text+audio]`."""
    return split if len(part) == len(inputs) else f"{split}[{'+'.join(part)}]"
