"""Inputs of one row lie close, those of different rows apart, beside what is hidden of them."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from mm.model import MultimodalModel
from mm.tasks.content import content
from mm.tasks.distributed.gathering import Loss, ReadsContent, compare, measurable, merge, retrieved, unit
from mm.tasks.pretraining import Objective
from mm.types import IGNORE, Batch, Embedded, Features


class ContrastiveObjective(Objective):
    """Contrast whole inputs, as CLIP does (Radford 2021), beside objectives that hide parts (ALBEF, Li 2021).

    Args:
        model: The model.
        loss: One of `mm.losses`, without labels; of several groups of inputs that it compares, each counts alike.
        retrieval: Metric of retrieval between the inputs.
        inputs: Names of the inputs; None: all.
        weight: Factor on the loss among those of several objectives.

    Raises:
        ValueError: If there are fewer than two inputs, one is none of the model's, or the loss reads a label.
    """

    gathers = True

    def __init__(
        self,
        model: MultimodalModel,
        loss: Loss,
        retrieval: Metric,
        inputs: Sequence[str] | None = None,
        weight: float = 1.0,
    ):
        super().__init__()
        for name in inputs or ():
            if name not in model.inputs:
                raise ValueError(
                    f"task.objectives: contrastive got the input '{name}', which is none of {', '.join(model.inputs)}"
                )
        self.inputs = model.inputs if inputs is None else list(inputs)
        if len(self.inputs) < 2:
            raise ValueError(
                f"task.objectives: contrastive compares inputs, but there is only {', '.join(self.inputs)}"
            )
        if loss.logq_correction:
            raise ValueError(
                "task.objectives: contrastive has no labels, by which items are counted; leave loss.logq_correction "
                "out, or choose task=contrastive"
            )
        self.whole = self.inputs == model.inputs
        self.loss = loss
        self.retrieval: Any = retrieval
        groups = loss.groups(len(self.inputs))
        self.groups = {group: "+".join(self.inputs[i] for i in group) for group in groups}
        self.losses = dict.fromkeys(self.groups.values(), weight / len(groups))

    def hide(self, batch: Batch, generator: torch.Generator | None) -> dict[str, tuple[Tensor | Features, Tensor]]:
        """All is shown."""
        return {name: (batch.inputs[name], torch.zeros(0)) for name in self.inputs}

    def errors(
        self, batch: Batch, features: dict[str, Features], hidden: dict[str, Tensor]
    ) -> dict[str, tuple[Tensor, Tensor]]:
        """Filler is absent."""
        vectors = unit(torch.stack([of.pooled for of in features.values()], 1))
        present = torch.stack([of.mask.any(1) for of in features.values()], 1) & (batch.row >= 0)[:, None]
        label = torch.full_like(batch.row, IGNORE)
        mine = Embedded(vectors, present, batch.row, label, torch.zeros_like(label, dtype=vectors.dtype))
        if not self.training:
            reads = isinstance(self.retrieval, ReadsContent)
            held = [content(batch, [[name] for name in self.inputs])[1]] if reads else []
            self.retrieval.update(*merge(mine), *held)
        return {self.groups[group]: found for group, found in compare(self.loss, mine).items()}

    def names(self) -> dict[str, dict[str, bool]]:
        return measurable(self.retrieval, self.inputs)

    def measured(self) -> dict[str, dict[str, Tensor]]:
        return retrieved(self.retrieval, self.inputs)

    def kept(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """Where all inputs are compared, as of task=contrastive: mm evaluate and mm search then go by it."""
        how = {"retrieval": config["retrieval"], "label": None, "group": None}
        return how | {"scale": self.loss.temperature().item()} if self.whole else {}
