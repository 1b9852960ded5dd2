"""Learn labelled targets; measure them for the whole model and for every subset of its inputs."""

import warnings
from collections.abc import Mapping
from itertools import combinations
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn
from torchmetrics import Metric, SumMetric

from mm.model import MultimodalModel
from mm.tasks.base import Task, positive
from mm.types import Batch, Drawn, Features, Output, mask_inputs

Scores = Mapping[str, Mapping[str, Metric]]


class Supervised(Task):
    """Each head learns its target.

    metrics: head name -> metric name -> torchmetrics Metric, fed by the head's `score`; modality_dropout: probability
    that a present input of a training row is taken as absent, never all of a row's; val_subsets: whether validation,
    like the test, also measures every subset of the inputs.
    """

    scores: Mapping[str, Scores]  # section, such as test[audio] -> head name -> metric name -> metric

    def __init__(
        self,
        model: MultimodalModel,
        *args: Any,
        metrics: Mapping[str, Mapping[str, Metric]],
        modality_dropout: float = 0.0,
        val_subsets: bool = False,
        **kwargs: Any,
    ):
        super().__init__(model, *args, **kwargs)
        if not 0 <= modality_dropout < 1:
            raise ValueError(f"task.modality_dropout: got {modality_dropout}, wanted a probability below 1")
        self.modality_dropout = modality_dropout
        parts = subsets(model.inputs)
        self.parts = {"val": parts if val_subsets else parts[:1], "test": parts}
        self.scores = nn.ModuleDict(  # type: ignore[assignment]
            {
                section(split, part, model.inputs): nn.ModuleDict({head: scores(m) for head, m in metrics.items()})
                for split, parts in self.parts.items()
                for part in parts
            }
        )
        self.results: dict[str, float] = {}  # of the last test: name -> number
        self.figures: dict[str, Any] = {}  # of the last test: name -> matplotlib Figure
        self.decoded: dict[int, dict[str, dict[str, Any]]] = {}  # row -> head -> what its decode gave

    def losses(self, batch: Batch) -> dict[str, tuple[Tensor, Tensor, float]]:
        masks = batch.masks
        if self.modality_dropout:
            masks = drop_inputs(masks, self.modality_dropout)
        output = self.model(batch.inputs, masks, batch.targets)
        return {
            name: (*head.loss(output.predictions[name], batch.targets[name], output.fused), head.weight)
            for name, head in self.model.heads.items()
        }

    def val_names(self) -> dict[str, bool | None]:
        names: dict[str, bool | None] = {"val/loss": False}
        for place, heads in self.scores.items():
            for head, measured in heads.items() if place.startswith("val") else ():
                prefix = place if len(heads) == 1 else f"{place}/{head}"
                for name, metric in measured.items():
                    if name not in ("loss", "rows") or (name == "loss" and place == "val"):
                        names |= {f"{prefix}/{n}": metric.higher_is_better for n in metric_names(name, metric)}
        return names

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.measure("val", batch)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        output = self.measure("test", batch)
        predictions, first = self.model.merge(output.predictions, batch.row)
        fused = Features(*(x[first] for x in output.fused))
        meta = {name: x[first] for name, x in batch.meta.items()}
        rows = batch.row[first].tolist()
        for name, head in self.model.heads.items():
            for row, answer in zip(rows, head.decode(predictions[name], fused, meta), strict=True):
                if row >= 0:
                    self.decoded.setdefault(row, {})[name] = answer

    def measure(self, split: str, batch: Batch) -> Output:
        """Update the metrics of a split; the encoders run once for all subsets. -> Output of the whole model"""
        features = self.model.encode(batch.inputs, batch.masks)
        whole: Output | None = None
        for part in self.parts[split]:
            output = self.model.predict(mask_inputs(features, part), batch.targets)
            whole = whole or output
            measured = self.scores[section(split, part, self.model.inputs)]
            if not len(measured):
                continue
            # A row that has none of a subset's inputs says nothing of it. The whole model answers for every row.
            seen = None if output is whole else torch.stack([features[n].mask.any(1) for n in part]).any(0)
            self._update(measured, output, batch, seen)
        assert whole is not None
        return whole

    def _update(self, measured: Scores, output: Output, batch: Batch, seen: Tensor | None) -> None:
        predictions, first = self.model.merge(output.predictions, batch.row)
        for name, head in self.model.heads.items():
            scores = measured[name]
            target = batch.targets[name]
            if seen is None:
                scores["loss"].update(*head.loss(output.predictions[name], target, output.fused))
            keep = slice(None) if seen is None else seen[first]
            prediction, target = head.score(predictions[name][keep], target[first][keep])
            scores["rows"].update(len(target))
            if len(target):
                for metric_name, metric in scores.items():
                    if metric_name not in ("loss", "rows"):
                        metric.update(prediction, target)

    def on_validation_epoch_end(self) -> None:
        values, _ = self.compute("val")
        # Per-class numbers are for the test: hundreds of curves help nobody.
        deepest = 1 + (len(self.model.heads) > 1)
        self.log_dict({n: v for n, v in values.items() if n.count("/") <= deepest and not n.endswith("/rows")})

    def on_test_epoch_start(self) -> None:
        self.decoded, self.results, self.figures = {}, {}, {}

    def on_test_epoch_end(self) -> None:
        values, self.figures = self.compute("test")
        self.results = {name: float(value) for name, value in values.items()}
        self.log_dict(values)

    def compute(self, split: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Name -> value, and the pictures of the whole model's metrics; then everything starts anew."""
        values: dict[str, Tensor] = {}
        figures: dict[str, Any] = {}
        for part in self.parts[split]:
            place = section(split, part, self.model.inputs)
            losses = []
            for head, measured in self.scores[place].items():
                prefix = place if len(self.model.heads) == 1 else f"{place}/{head}"
                found, drawn = read_scores(measured, draw=place == "test")
                values |= {f"{prefix}/{name}": value for name, value in found.items()}
                figures |= {f"{prefix}/{name}": figure for name, figure in drawn.items()}
                if "loss" in found:
                    losses.append(self.model.heads[head].weight * found["loss"])
            if losses and len(self.model.heads) > 1:
                values[f"{place}/loss"] = torch.stack(losses).sum()
        return values, figures


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
                    figures[name] = metric.figure()
        metric.reset()
    return values, figures


def subsets(inputs: list[str]) -> list[tuple[str, ...]]:
    """All of them first, then every smaller subset, single ones first."""
    smaller = [part for size in range(1, len(inputs)) for part in combinations(inputs, size)]
    return [tuple(inputs), *smaller]


def section(split: str, part: tuple[str, ...], inputs: list[str]) -> str:
    """`test` for all inputs, else `test[text+audio]`."""
    return split if len(part) == len(inputs) else f"{split}[{'+'.join(part)}]"


def drop_inputs(masks: Mapping[str, Tensor], probability: float) -> dict[str, Tensor]:
    """Each present input is taken as absent with that probability, but one of a row's, drawn at random, stays."""
    present = torch.stack([mask.any(1) for mask in masks.values()], dim=1)  # (B, inputs)
    lot = torch.rand(present.shape, device=present.device)
    stays = (lot * present) == (lot * present).amax(1, keepdim=True)
    keep = (torch.rand_like(lot) >= probability) | stays
    return {name: mask & keep[:, i, None] for i, (name, mask) in enumerate(masks.items())}
