"""Contrastive learning: pull the inputs of one row together and push those of different rows apart.

If the fusion has towers (groups of inputs), the towers are aligned instead of the inputs. Pairs with an absent side do
not count.
"""

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torchmetrics import Metric

from mm._compat.torch import BatchNorm
from mm.data_source import data_source
from mm.model import MultimodalModel
from mm.protocols import Offers
from mm.tasks.base import Task
from mm.tasks.content import content
from mm.tasks.distributed.gathering import Loss, ReadsContent, compare, logged, measurable, merge, retrieved, unit
from mm.tasks.measures import Mean, mean_losses
from mm.tensors import pick
from mm.types import IGNORE, Batch, Embedded, Towered


@runtime_checkable
class RankingMetric(Protocol, metaclass=Offers):
    """A retrieval metric that needs the labels of all rows of the data, such as mm.metrics.ranking.Ranking."""

    def set_index(self, label: Tensor, group: Tensor, before: Tensor) -> None:
        """Set the facts about all N rows of the data.

        Args:
            label: Class index of each row, (N,).
            group: Group of each row, such as a user, (N,).
            before: Whether each row belongs to an earlier split than the evaluated one, (N,) bool.
        """
        ...


class Contrastive(Task):
    """Align inputs, or towers of inputs, with a contrastive loss, and evaluate retrieval between them.

    All groups of inputs or towers that the loss compares have the same weight.

    Args:
        model: The model.
        *args: Arguments of `Task`.
        retrieval: Retrieval metric, which is copied for each split.
        loss: A loss of `mm.losses`; None for a task that is only tested.
        label: Target whose classes identify items: rows of the same class are not negatives of each other, and are one
            item in a ranking; see `task.loss.same_label_pairs`.
        group: Target, such as a user. A ranking leaves out the items that rows of the same class had in earlier splits.
        chunk_size: Number of rows that are encoded at a time; None: the complete batch. Each chunk is encoded a second
            time in the backward pass with the same random state (GradCache, Gao 2021), so that memory depends on the
            chunk size, and the number of negatives on the batch size.
        zero_shot: Settings of the zero-shot evaluation that the command line runs after the test.
        **kwargs: Arguments of `Task`.

    Raises:
        ValueError: If there are fewer than two inputs or towers, or if the loss does not train a part of the model.
    """

    reads_heads = False
    gathers = True
    unsharded = "its temperature"

    def __init__(
        self,
        model: MultimodalModel,
        *args: Any,
        retrieval: Metric,
        loss: Loss | None = None,
        label: str | None = None,
        group: str | None = None,
        chunk_size: int | None = None,
        zero_shot: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ):
        super().__init__(model, *args, **kwargs)
        check_contrastive(model, chunk_size)
        self.loss = loss
        self.label = label
        self.group = group
        self.log_q = torch.zeros(0)  # (classes,) log frequency of each label, if the loss uses it
        self.chunk_size = chunk_size
        self.zero_shot = dict(zero_shot or {})
        self.compared = list(model.fusion.towers) if isinstance(model.fusion, Towered) else model.inputs
        groups = loss.groups(len(self.compared)) if loss is not None else []
        self.names = {group: "+".join(self.compared[i] for i in group) for group in groups}
        self.means: Mapping[str, Mapping[str, Mean]] = nn.ModuleDict(  # type: ignore[assignment]
            {split: nn.ModuleDict({name: Mean() for name in self.names.values()}) for split in ("val", "test")}
        )
        self.retrieval: Mapping[str, Any] = nn.ModuleDict(  # type: ignore[assignment]
            {split: retrieval.clone() for split in ("val", "test")}
        )
        self.embedded: tuple[Tensor, Tensor, Tensor] | None = None  # of the last test: vectors, present, row of all

    def setup(self, stage: str) -> None:
        """Set up the task and give the label frequencies to the loss and the labels to a ranking metric.

        Raises:
            ValueError: If the loss or the metric needs a label, but `label` is not set.
        """
        super().setup(stage)
        logq_correction = self.loss is not None and self.loss.logq_correction
        if self.label is None:
            if logq_correction or isinstance(self.retrieval["test"], RankingMetric):
                part = "task.loss.logq_correction" if logq_correction else "task.retrieval"
                raise ValueError(f"{part} counts items by their label: set task.label to the target that names them")
            return
        data = data_source(self.trainer)
        if logq_correction:
            counts = torch.tensor(data.spec.targets[self.label].facts["counts"]).clamp(min=1)
            self.log_q = (counts / counts.sum()).log()
        if not isinstance(self.retrieval["test"], RankingMetric):
            return
        label = data.targets[self.label]
        group = torch.full_like(label, IGNORE) if self.group is None else data.targets[self.group]
        split = torch.from_numpy(np.select([data.splits == name for name in ("train", "val", "test")], [0, 1, 2], 3))
        for number, name in ((1, "val"), (2, "test")):
            self.retrieval[name].set_index(label, group, split < number)

    def on_fit_start(self) -> None:
        if self.trainer.accumulate_grad_batches > 1:
            rank_zero_warn(
                f"trainer.accumulate_grad_batches={self.trainer.accumulate_grad_batches} adds no negatives: rows are "
                "compared within their own batch alone; raise datamodule.batch_size, and set task.chunk_size to the "
                "rows that fit"
            )

    def losses(self, batch: Batch) -> dict[str, tuple[Tensor, Tensor, float]]:
        return self.compare(self.embed(batch))

    def compare(self, mine: Embedded) -> dict[str, tuple[Tensor, Tensor, float]]:
        """Return the losses of the rows of this process against those of all processes."""
        assert self.loss is not None
        found = compare(self.loss, mine)
        return {self.names[group]: (*loss, 1 / len(found)) for group, loss in found.items()}

    def embed(self, batch: Batch) -> Embedded:
        """Return the embeddings of a batch. Rows that only even out the batches of processes count as absent."""
        label = torch.full_like(batch.row, IGNORE) if self.label is None else batch.targets[self.label]
        vectors, present = self.encode(batch)
        log_q = torch.zeros_like(label, dtype=vectors.dtype)
        if len(self.log_q):  # an unlabelled row counts as the rarest class
            log_q = torch.where(label == IGNORE, self.log_q.min(), self.log_q.to(label.device)[label.clamp(min=0)])
        return Embedded(vectors, present & (batch.row >= 0)[:, None], batch.row, label, log_q)

    def encode(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the unit vectors (B, N, D) of the N inputs or towers, and their presence (B, N), chunk by chunk."""
        rows = len(batch.row)
        if self.chunk_size is None:
            return self.unit(batch.inputs, batch.masks)
        parts = []
        for i in range(0, rows, self.chunk_size):
            chunk = slice(i, i + self.chunk_size)
            inputs, masks = pick(batch.inputs, chunk), pick(batch.masks, chunk)
            # Nothing is kept of a chunk but its vectors. When their gradient is known, the backward pass takes one
            # chunk after the other, the last first, and encodes it again from the random state of the first time.
            again = torch.is_grad_enabled()
            parts.append(
                checkpoint(self.unit, inputs, masks, use_reentrant=False) if again else self.unit(inputs, masks)
            )
        vectors, present = zip(*parts, strict=True)
        return torch.cat(vectors), torch.cat(present)

    def unit(self, inputs: Mapping[str, Any], masks: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return the unit vectors (B, N, D) of the N inputs or towers, and their presence (B, N), without chunks."""
        output = self.model(inputs, masks)
        if isinstance(self.model.fusion, Towered):
            vectors, present = output.fused.tokens, output.fused.mask
        else:
            vectors = torch.stack([f.pooled for f in output.features.values()], 1)
            present = torch.stack([f.mask.any(1) for f in output.features.values()], 1)
        return unit(vectors), present

    def train_losses(self) -> dict[str, Tensor]:
        assert self.loss is not None
        found = mean_losses("train", self._losses)
        return found | {"train/logit_scale": self.loss.temperature().detach().squeeze()} if found else {}

    def export_config(self, config: Mapping[str, Any]) -> dict[str, Any]:
        how = {key: config[key] for key in ("retrieval", "label", "group")}
        return how if self.loss is None else how | {"scale": self.loss.temperature().item()}

    def replay(self, batch: Batch) -> Any:
        """Repeat the encoding without comparing with other processes, which need not repeat theirs."""
        return self.encode(batch)

    def val_names(self) -> dict[str, bool | None]:
        places = measurable(self.retrieval["val"], self.compared)
        names: dict[str, bool | None] = {"val/loss": False}
        names |= {f"val/{name}": up for name, up in places.pop("").items()}
        if len(self.names) > 1:
            names |= {f"val/{name}/loss": False for name in self.names.values()}
        return names | {f"val[{pair}]/{name}": up for pair, found in places.items() for name, up in found.items()}

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.measure("val", batch)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self.measure("test", batch)

    def measure(self, split: str, batch: Batch) -> None:
        """Update the metrics of a split with a batch."""
        mine = self.embed(batch)
        if self.loss is not None:
            for name, (total, count, _) in self.compare(mine).items():
                self.means[split][name].update(total, count)
        vectors, present, row = merge(mine)
        if isinstance(self.retrieval[split], ReadsContent):
            rows, held = content(batch, sides(self.model))
            assert torch.equal(rows, row)
            self.retrieval[split].update(vectors, present, row, held)
        else:
            self.retrieval[split].update(vectors, present, row)

    def on_validation_epoch_end(self) -> None:
        self.log_dict(logged(self.compute("val")))

    def on_test_epoch_start(self) -> None:
        self.results, self.embedded = {}, None

    def on_test_epoch_end(self) -> None:
        retrieval = self.retrieval["test"]
        with retrieval.sync_context():
            vectors, present, row = (x.cpu() for x in retrieval.seen())
        self.embedded = vectors, present, row
        values = self.compute("test")
        self.results = {name: float(value) for name, value in values.items()}
        self.log_dict(values)

    def compute(self, split: str) -> dict[str, Tensor]:
        """Return the metrics of a split by name, and reset them."""
        values: dict[str, Tensor] = {}
        means = self.means[split]
        if means:
            losses = {
                name: (mean.compute(), torch.ones_like(mean.count), 1 / len(means)) for name, mean in means.items()
            }
            values |= mean_losses(split, losses)
        for mean in means.values():
            mean.reset()
        for pair, found in retrieved(self.retrieval[split], self.compared).items():
            values |= {f"{split}[{pair}]/{name}" if pair else f"{split}/{name}": of for name, of in found.items()}
        return values


def sides(model: MultimodalModel) -> list[list[str]]:
    """Return the compared groups of inputs: the inputs of each tower, or each input by itself."""
    fusion = model.fusion
    return [list(of) for of in fusion.inputs.values()] if isinstance(fusion, Towered) else [[n] for n in model.inputs]


def check_contrastive(model: MultimodalModel, chunk_size: int | None) -> None:
    """Check that a model can be trained by comparing its inputs or towers.

    Raises:
        ValueError: If there are fewer than two, if the loss would not train a part of the fusion, or if `chunk_size` is
            not possible with the model.
    """
    fusion: Any = model.fusion
    towers: Any = model.fusion.towers if isinstance(model.fusion, Towered) else {}
    sides = list(towers or model.inputs)
    if len(sides) < 2:
        raise ValueError(f"task=contrastive compares inputs, or towers, but there is only {', '.join(sides)}")
    reached = {id(p) for tower in towers.values() for p in tower.parameters()}
    missed = any(p.requires_grad and id(p) not in reached for p in fusion.parameters())
    if missed and isinstance(fusion, Towered):
        raise ValueError(
            "task=contrastive compares towers before they are combined: nothing would train what combines them; leave "
            "model.fusion.combine out"
        )
    if missed:
        raise ValueError(
            f"task=contrastive compares inputs before they are fused: nothing would train {type(fusion).__name__}; "
            "leave model/fusion out, or set model/fusion=sum"
        )
    if chunk_size is None:
        return
    if chunk_size < 1:
        raise ValueError(f"task.chunk_size: got {chunk_size}, wanted at least 1 row, or null")
    named = [n for n, m in model.named_modules() if isinstance(m, BatchNorm)]
    if named:
        raise ValueError(
            f"task.chunk_size: {named[0]} is a batch norm, which would see single chunks, and each of them twice; "
            "choose an encoder without, or leave task.chunk_size out"
        )
