"""Supervised learning of labelled targets, with metrics for the complete model and for every subset of its inputs."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.loggers import WandbLogger
from torch import Tensor, nn
from torchmetrics import Metric

from mm.data_source import data_source
from mm.model import MultimodalModel
from mm.reports import HasFigure
from mm.tasks.answers import Answers
from mm.tasks.base import Task
from mm.tasks.distributed.sharding import FSDP2Strategy
from mm.tasks.measures import (
    check_metric_names,
    choose_subsets,
    mean_losses,
    metric_directions,
    monitored_names,
    positive,
    read_scores,
    scores,
    section,
)
from mm.tasks.row_loss import row_loss
from mm.tasks.unimodal import Distillation, check_teacher, own_heads, read_alone, resolve_loss_weights, teacher_loss
from mm.tensors import labelled, mask_inputs, pick
from mm.types import Batch, Head, Output
from mm.windows import MergedOutput, windows_of

Scores = Mapping[str, Mapping[str, Metric]]
SUBSETS: dict[str, bool | str | Sequence[str | Sequence[str]]] = {"val": "none", "test": "auto"}
Losses = dict[str, tuple[Tensor, Tensor, float]]  # name to total, count, weight


class Supervised(Task):
    """Train each head on its target.

    Args:
        model: The model.
        *args: Arguments of `Task`.
        metrics: Head name to metric name to a torchmetrics Metric. It is updated with the result of the prediction's
            `metric_inputs` or `compare`.
        modality_dropout: Probability that a present input of a training row is masked as absent. At least one input of
            each row stays.
        modality_subsets: "val" and "test" to the subsets of the inputs that are evaluated there: "none", "auto", "all",
            "single" or a list, see mm.tasks.measures.choose_subsets. The default is none for "val" and auto for "test".
        unimodal_loss_weight: Weight of the loss of unimodal heads, which predict the targets from one input alone, in
            the training of the input's encoder. One weight for all inputs, or input name to weight; an input with
            weight 0 has heads that only evaluate it. None: there are no such heads.
        unimodal_probes: Whether each input without a loss weight has unimodal heads as probes. They are trained, but
            their gradient does not reach the encoder, so they only evaluate the input.
        distillation: Trained models whose vectors of an input the model imitates.
        **kwargs: Arguments of `Task`.

    Raises:
        ValueError: If a number is out of range, if an input is unknown, if a teacher has another width, or if two
            metrics have values of the same name.
    """

    scores: Mapping[str, Scores]  # section, such as test[audio], to head name to metric name to metric

    def __init__(
        self,
        model: MultimodalModel,
        *args: Any,
        metrics: Mapping[str, Mapping[str, Metric]],
        modality_dropout: float = 0.0,
        modality_subsets: Mapping[str, bool | str | Sequence[str | Sequence[str]]] | None = None,
        unimodal_loss_weight: float | Mapping[str, float] | None = None,
        unimodal_probes: bool = False,
        distillation: Distillation | None = None,
        **kwargs: Any,
    ):
        super().__init__(model, *args, **kwargs)
        if not 0 <= modality_dropout < 1:
            raise ValueError(f"task.modality_dropout: got {modality_dropout}, wanted a probability below 1")
        self.modality_dropout = modality_dropout
        chosen = SUBSETS | dict(modality_subsets or {})
        for split in chosen:
            if split not in SUBSETS:
                raise ValueError(f"task.modality_subsets: got '{split}', wanted val or test")
        self.parts = {k: choose_subsets(f"modality_subsets.{k}", one, model.inputs) for k, one in chosen.items()}
        for head, named in metrics.items():
            check_metric_names(head, named)
        self.scores = nn.ModuleDict(  # type: ignore[assignment]
            {
                section(split, part, model.inputs): nn.ModuleDict({head: scores(m) for head, m in metrics.items()})
                for split, parts in self.parts.items()
                for part in parts
            }
        )
        self.unimodal_loss_weight = resolve_loss_weights(unimodal_loss_weight, unimodal_probes, model.inputs)
        for name, head in model.heads.items() if self.unimodal_loss_weight else ():
            if head.input is not None:
                raise ValueError(
                    f"task.unimodal_loss_weight, unimodal_probes: the head '{name}' predicts something of each token "
                    f"of '{head.input}', so that the other inputs can't have a head of their own; leave both out"
                )
        self.fused_weight = (
            1.0  # weight of the complete model's losses; callbacks.gradient_blending sets it and unimodal_loss_weight
        )
        self.unimodal: Mapping[str, nn.ModuleDict] = own_heads(model, list(self.unimodal_loss_weight))  # type: ignore
        plain = {h: {n: x for n, x in m.items() if not isinstance(x, HasFigure)} for h, m in metrics.items()}
        self.unimodal_scores: Mapping[str, Scores] = nn.ModuleDict(  # type: ignore[assignment]
            {
                section(split, (name,), model.inputs): nn.ModuleDict({head: scores(m) for head, m in plain.items()})
                for split in self.parts
                for name in self.unimodal_loss_weight
            }
        )
        self.alone: dict[str, tuple[Output, dict[str, Tensor]]] = {}  # last batch: input to output, targets
        self.teacher_weight = distillation.weight if distillation else 0.0
        teachers = distillation.teachers if distillation else None
        self.teachers = dict(teachers or {})  # not submodules, so that they are neither saved nor trained
        for name, teacher in self.teachers.items():
            check_teacher(name, teacher, model)
            teacher.requires_grad_(False).eval()

    def probes(self) -> set[str]:
        return {f"{name}/{head}" for name, w in self.unimodal_loss_weight.items() if not w for head in self.model.heads}

    def separately_clipped(self) -> Iterator[nn.Parameter]:
        for heads in self.unimodal.values():
            yield from heads.parameters()

    def configure_model(self) -> None:
        super().configure_model()
        if isinstance(self.trainer.strategy, FSDP2Strategy):
            for heads in self.unimodal.values():
                self.trainer.strategy.shard_heads(heads)

    def on_fit_start(self) -> None:
        for teacher in self.teachers.values():
            teacher.to(self.device, self.dtype)  # type: ignore[arg-type]

    def losses(self, batch: Batch) -> Losses:
        masks = batch.masks
        if self.modality_dropout and self.training:
            masks = drop_inputs(masks, self.modality_dropout)
        output = self.model(batch.inputs, masks, batch.targets)
        sample = batch.meta.get("sample")
        found = self.head_losses(output, batch.targets, sample, self.fused_weight)
        self.alone = {
            name: read_alone(heads, output.features[name], batch.targets, self.unimodal_loss_weight[name])
            for name, heads in self.unimodal.items()
        }
        for name, (own, targets) in self.alone.items():
            found |= {f"{name}/{head}": loss for head, loss in self.head_losses(own, targets, sample).items()}
        for name, teacher in self.teachers.items():
            loss = teacher_loss(teacher, name, batch.inputs[name], batch.masks[name], output.features[name])
            found[f"teacher of {name}"] = (*loss, self.teacher_weight)
        return found

    def head_losses(
        self, output: Output, targets: Mapping[str, Tensor], sample: Tensor | None, weight: float = 1.0
    ) -> Losses:
        """Return the loss of every head, or of the unimodal heads of an input.

        Args:
            output: Output of the heads.
            targets: Target name to targets.
            sample: Index of the sample of each window, as in `row_loss`.
            weight: Factor on the weight of each head.
        """
        return {
            name: (*row_loss(head, output.predictions[name], targets[name], output.fused, sample), weight * head.weight)
            for name, head in self.model.heads.items()
        }

    def by_input(self, losses: Losses) -> dict[str, Losses]:
        """Group losses by the complete model ("") and the unimodal heads of each input, with the heads' weights."""
        heads = self.model.heads
        parts = {"": "", **{name: f"{name}/" for name in self.unimodal}}
        return {
            part: {name: (*losses[f"{prefix}{name}"][:2], head.weight) for name, head in heads.items()}
            for part, prefix in parts.items()
        }

    def train_losses(self) -> dict[str, Tensor]:
        if not self._losses:  # the step was skipped
            return {}
        parts = self.by_input(self._losses)
        found = mean_losses("train", parts.pop(""))
        for name, part in parts.items():
            found |= mean_losses(section("train", (name,), self.model.inputs), part, "unimodal_loss")
        for name in self.teachers:
            total, count, _ = self._losses[f"teacher of {name}"]
            found[f"{section('train', (name,), self.model.inputs)}/teacher_loss"] = total / positive(count)
        return found

    def val_names(self) -> dict[str, bool | None]:
        names: dict[str, bool | None] = {"val/loss": False}
        for place, mark, heads in self.measured("val"):
            names |= {f"{place}/{mark}loss": False} if mark else {}
            for head, measured in heads.items():
                prefix = f"{place if len(heads) == 1 else f'{place}/{head}'}/{mark}"
                for name, metric in measured.items():
                    if name not in ("loss", "rows") or (name == "loss" and (mark or place == "val")):
                        names |= {f"{prefix}{n}": metric.higher_is_better for n in monitored_names(name, metric)}
        return names

    def directions(self) -> dict[str, bool | None]:
        found: dict[str, bool | None] = dict(self.val_names())
        for split in self.parts:
            for place, mark, heads in self.measured(split):
                found[f"{place}/{mark}loss"] = False
                for head, measured in heads.items():
                    prefix = f"{place if len(heads) == 1 else f'{place}/{head}'}/{mark}"
                    for name, metric in measured.items():
                        found |= {f"{prefix}{n}": up for n, up in metric_directions(name, metric).items()}
        return found

    def measured(self, split: str) -> Iterator[tuple[str, str, Scores]]:
        """Yield section, prefix of metric names, and metrics of every subset, then of each input's unimodal heads."""
        inputs = self.model.inputs
        for place in (section(split, part, inputs) for part in self.parts[split]):
            yield place, "", self.scores[place]
        for place in (section(split, (name,), inputs) for name in self.unimodal):
            yield place, "unimodal_", self.unimodal_scores[place]

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.measure("val", batch)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        output, merged, decoded = self.measure("test", batch)
        present = torch.stack([f.mask.any(1) for f in output.features.values()]).any(0)
        told = set(batch.row[present].tolist()) - {-1}  # rows without any input are not decoded
        for i, row in enumerate(merged.row.tolist() if decoded else ()):
            if row in told:
                self.decoded.add(row, {name: answers[i] for name, answers in decoded.items()})

    def measure(self, split: str, batch: Batch) -> tuple[Output, MergedOutput, dict[str, list[dict[str, Any]]]]:
        """Update the metrics of a split with a batch. The encoders run only once for all subsets.

        Args:
            split: "val" or "test".
            batch: The batch.

        Returns:
            The output of the complete model, its merged windows and, in a test, its decoded predictions by head.
        """
        features = self.model.encode(batch.inputs, batch.masks)
        inputs = self.model.inputs
        output = self.model.predict(features, batch.targets)
        merged = self.model.merge(output, batch)
        decoded = self.model.decode(merged) if split == "test" else {}
        for part in self.parts[split]:
            measured = self.scores[section(split, part, inputs)]
            if not len(measured):  # there are no metrics if rows are only predicted
                continue
            if len(part) == len(inputs):  # the complete model predicts every row
                self._update(measured, output, merged, batch, None, decoded)
            else:
                less = self.model.predict(mask_inputs(features, part), batch.targets)
                # Rows without any input of the subset are left out, and windows too if another window has one.
                seen, telling = windows_of(features, part, batch.row)
                less, rows, seen = (pick(x, telling) for x in (less, batch, seen))
                self._update(measured, less, self.model.merge(less, rows), rows, seen, {})
        for name, heads in self.unimodal.items():
            own, targets = read_alone(heads, features[name], batch.targets)
            _, telling = windows_of(features, (name,), batch.row)
            own, rows = (pick(x, telling) for x in (own, batch._replace(targets=targets)))
            measured = self.unimodal_scores[section(split, (name,), inputs)]
            self._update(measured, own, self.model.merge(own, rows), rows, None, {})
        return output, merged, decoded

    def _update(
        self,
        measured: Scores,
        output: Output,
        merged: MergedOutput,
        batch: Batch,
        seen: Tensor | None,
        decoded: Mapping[str, list[dict[str, Any]]],
    ) -> None:
        """Update metrics with the windows in `seen` (None: all); `decoded` has predictions that are already decoded."""
        for name, head in self.model.heads.items():
            scores = measured[name]
            if seen is None:
                prediction = output.predictions[name]
                loss = row_loss(head, prediction, batch.targets[name], output.fused, batch.meta.get("sample"))
                scores["loss"].update(*loss)
            keep = torch.ones_like(merged.first, dtype=torch.bool) if seen is None else seen[merged.first]
            if merged.predictions[name].compares_decoded:
                keep = keep & self.answered(name, head, merged, batch)
                prediction, target = self.compare(name, head, merged, keep, decoded.get(name))
            else:
                part = slice(None) if seen is None else keep
                prediction, target = pick(merged.predictions[name], part).metric_inputs(merged.targets[name][part])
            scores["rows"].update(len(target))
            if len(target):
                for metric_name, metric in scores.items():
                    if metric_name not in ("loss", "rows"):
                        metric.update(prediction, target)

    def answered(self, name: str, head: Head, merged: MergedOutput, batch: Batch) -> Tensor:
        """Return which rows have a target to compare with, even if all of it was truncated from the input.

        Args:
            name: Name of the head.
            head: The head.
            merged: Merged predictions, one per row.
            batch: The windows before merging.

        Returns:
            Whether each row counts, (R,) bool.
        """
        found = labelled(merged.targets[name]) & (merged.row >= 0)
        if head.input is not None and not found.all():
            read = set(batch.row[batch.masks[head.input].any(1)].tolist())
            data = data_source(self.trainer)
            more = [
                not known and row >= 0 and row in read and data.is_labelled(name, row)
                for row, known in zip(merged.row.tolist(), found.tolist(), strict=True)
            ]
            found = found | torch.tensor(more, device=found.device)
        return found

    def compare(
        self, name: str, head: Head, merged: MergedOutput, keep: Tensor, decoded: list[dict[str, Any]] | None
    ) -> tuple[Any, Any]:
        """Pair the decoded predictions of a head with the true values of the table, as inputs of the metrics.

        Args:
            name: Name of the head.
            head: The head.
            merged: Merged predictions, one per row.
            keep: Whether each row counts, (R,) bool.
            decoded: Decoded predictions of every row; None: they are decoded here.
        """
        rows = keep.nonzero().flatten()
        if decoded is None:
            meta = {key: x[rows] for key, x in merged.meta.items()}
            answers = head.decode(pick(merged.predictions[name], rows), pick(merged.fused, rows), meta)
        else:
            answers = [decoded[i] for i in rows.tolist()]
        data = data_source(self.trainer)
        truth = [data.truth(name, row) for row in merged.row[rows].tolist()]
        return merged.predictions[name].compare(answers, truth, head.decoding)

    def on_validation_epoch_end(self) -> None:
        watching = [x for x in self.loggers if isinstance(x, WandbLogger) and not self.trainer.sanity_checking]
        values, figures = self.compute("val", draw=bool(watching))
        for logger in watching:
            for name, figure in figures.items():
                logger.log_image(name, [figure], step=self.global_step)
        # Metrics of single classes are reported by the test only, because they would be hundreds of curves.
        deepest = 1 + (len(self.model.heads) > 1)
        self.log_dict({n: v for n, v in values.items() if n.count("/") <= deepest and not n.endswith("/rows")})

    def on_test_epoch_start(self) -> None:
        self.decoded = Answers(Path(self.trainer.default_root_dir))
        self.results, self.figures = {}, {}

    def on_test_epoch_end(self) -> None:
        values, self.figures = self.compute("test", draw=True)
        self.results = {name: float(value) for name, value in values.items()}
        self.log_dict(values)

    def compute(self, split: str, draw: bool = False) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Compute and reset the metrics of a split.

        Args:
            split: The split.
            draw: Whether to draw the figures of the complete model, such as its confusion matrix.

        Returns:
            The metrics and the figures by name.
        """
        values: dict[str, Tensor] = {}
        figures: dict[str, Any] = {}
        for place, mark, heads in self.measured(split):
            losses = []
            for head, measured in heads.items():
                prefix = f"{place if len(self.model.heads) == 1 else f'{place}/{head}'}/{mark}"
                found, drawn = read_scores(measured, draw=draw and place == split)
                values |= {f"{prefix}{n}": value for n, value in found.items() if not (mark and n == "rows")}
                figures |= {f"{prefix}{name}": figure for name, figure in drawn.items()}
                if "loss" in found:
                    losses.append(self.model.heads[head].weight * found["loss"])
            if losses and len(self.model.heads) > 1:
                values[f"{place}/{mark}loss"] = torch.stack(losses).sum()
        return values, figures


def drop_inputs(masks: Mapping[str, Tensor], probability: float) -> dict[str, Tensor]:
    """Mask each present input of each row with some probability, but keep at least one input, drawn at random.

    Args:
        masks: Input name to mask.
        probability: Probability of masking an input.
    """
    present = torch.stack([mask.any(1) for mask in masks.values()], dim=1)  # (B, inputs)
    lot = torch.rand(present.shape, device=present.device)
    stays = (lot * present) == (lot * present).amax(1, keepdim=True)
    keep = (torch.rand_like(lot) >= probability) | stays
    return {name: mask & keep[:, i, None] for i, (name, mask) in enumerate(masks.items())}
