"""What tasks measure with, and the names under which it is logged."""

import warnings
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn
from torchmetrics import Metric, SumMetric

from mm.reports import HasFigure

Part = tuple[str, ...]  # some of the inputs
CHOICES = ("auto", "all", "single", "none")
ALL_UP_TO = 4  # inputs, of which every subset is measured
COUNTS = ("support", "rows")  # numbers that tell how much was measured, not how well


def positive(count: Tensor) -> Tensor:
    """Counts to divide by: where nothing was counted, one. They may be fractions, as sums of class weights are."""
    return torch.where(count > 0, count, 1)


def mean_losses(
    place: str, losses: Mapping[str, tuple[Tensor, Tensor, float]], metric: str = "loss"
) -> dict[str, Tensor]:
    """Return means by the names that are logged: place/metric of all and, of several, place/name/metric of each."""
    means = {name: total / positive(count) for name, (total, count, _) in losses.items()}
    found = {f"{place}/{name}/{metric}": mean for name, mean in means.items()} if len(means) > 1 else {}
    if means:
        found[f"{place}/{metric}"] = torch.stack([losses[name][2] * mean for name, mean in means.items()]).sum()
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
    if not isinstance(metric, HasFigure):
        return [name]
    return [key for key in metric.names() if "/" not in key]


def metric_directions(name: str, metric: Metric) -> dict[str, bool | None]:
    """Return of every number that a metric computes whether a higher one is better, None for counts.

    Args:
        name: The metric's name in its head.
        metric: The metric.
    """
    names = metric.names() if isinstance(metric, HasFigure) else [name]
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
            if draw and isinstance(metric, HasFigure):
                with metric.sync_context():
                    figures |= drawn(name, metric)
        metric.reset()
    return values, figures


def drawn(name: str, metric: HasFigure) -> dict[str, Any]:
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


def choose_subsets(option: str, choice: bool | str | Sequence[str | Sequence[str]], inputs: list[str]) -> list[Part]:
    """Return the subsets of the inputs that are measured, all inputs together first.

    Args:
        option: The option's name, for messages.
        choice: "all" for every subset; "single" for each input alone; "none" or False for none but the whole;
            "auto" or True for every subset of up to 4 inputs and, of more, each input alone and all but each one: n
            inputs have 2^n - 1 subsets, 1,023 where n = 10; or a list of subsets, each `text+audio` or [text, audio].
        inputs: The model's inputs.

    Raises:
        ValueError: If the choice is none of these, or a subset has an unknown input, or none.
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
    """`test` for all inputs, else `test[text+audio]`."""
    return split if len(part) == len(inputs) else f"{split}[{'+'.join(part)}]"
