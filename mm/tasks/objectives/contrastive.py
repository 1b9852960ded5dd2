"""Contrastive pre-training: pull the inputs of one row together and push those of different rows apart.

It can be combined with objectives that mask a part of an input.
"""

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
    """Contrast complete inputs, as CLIP does (Radford 2021), also next to objectives that mask parts (ALBEF, Li 2021).

    Args:
        model: The model.
        loss: A loss of `mm.losses` that does not use labels. If it compares several groups of inputs, all groups have
            the same weight.
        retrieval: Retrieval metric between the inputs.
        inputs: Names of the inputs to compare; None: all inputs.
        weight: Weight of this loss in the sum of all objectives.

    Raises:
        ValueError: If there are fewer than two inputs, if the model lacks one of them, or if the loss uses labels.
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
        self.compares_all = self.inputs == model.inputs
        self.loss = loss
        self.retrieval: Any = retrieval
        groups = loss.groups(len(self.inputs))
        self.groups = {group: "+".join(self.inputs[i] for i in group) for group in groups}
        self.losses = dict.fromkeys(self.groups.values(), weight / len(groups))

    def corrupt(self, batch: Batch, generator: torch.Generator | None) -> dict[str, tuple[Tensor | Features, Tensor]]:
        """Return the inputs unchanged, because this objective masks nothing.

        Args:
            batch: The batch.
            generator: Not used.

        Returns:
            Input name to the input and an empty mask.
        """
        return {name: (batch.inputs[name], torch.zeros(0)) for name in self.inputs}

    def compute_loss(
        self, batch: Batch, features: dict[str, Features], hidden: dict[str, Tensor]
    ) -> dict[str, tuple[Tensor, Tensor]]:
        """Return the loss of each group of inputs; outside of training also update the retrieval metric.

        Rows that only even out the batches of several processes count as absent.

        Args:
            batch: The batch.
            features: Features of each input, by input name.
            hidden: Not used.

        Returns:
            Names of the compared inputs, joined by "+", to the sum of the loss over the rows of this process and their
            number.
        """
        vectors = unit(torch.stack([of.pooled for of in features.values()], 1))
        present = torch.stack([of.mask.any(1) for of in features.values()], 1) & (batch.row >= 0)[:, None]
        label = torch.full_like(batch.row, IGNORE)
        mine = Embedded(vectors, present, batch.row, label, torch.zeros_like(label, dtype=vectors.dtype))
        if not self.training:
            reads = isinstance(self.retrieval, ReadsContent)
            held = [content(batch, [[name] for name in self.inputs])[1]] if reads else []
            self.retrieval.update(*merge(mine), *held)
        return {self.groups[group]: found for group, found in compare(self.loss, mine).items()}

    def metric_names(self) -> dict[str, dict[str, bool]]:
        return measurable(self.retrieval, self.inputs)

    def metrics(self) -> dict[str, dict[str, Tensor]]:
        return retrieved(self.retrieval, self.inputs)

    def export_config(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """Return the settings that `mm evaluate` and `mm search` read from the model directory.

        They have the form of those of task=contrastive. The result is empty if only some of the inputs are compared.

        Args:
            config: The config that the objective was built from.

        Returns:
            The config of the retrieval metric, `label` and `group`, which are None, and `scale`, the factor on the
            similarities.
        """
        how = {"retrieval": config["retrieval"], "label": None, "group": None}
        return how | {"scale": self.loss.temperature().item()} if self.compares_all else {}
