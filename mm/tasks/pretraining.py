"""Learn of inputs without labels: a part of each is hidden, or lies ahead, and is told from the rest."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from mm.model import MultimodalModel
from mm.tasks.base import Task
from mm.tasks.measures import Mean, mean_losses
from mm.types import Batch, Features


class Objective(Protocol):
    """What is hidden of some inputs, and how well it is told; an nn.Module, whose weights are not kept."""

    inputs: Sequence[str]  # those it learns of
    weight: float  # of its losses

    def prepare(self, transforms: Mapping[str, Any]) -> None:
        """Before the first batch: what the inputs' Transforms know. Errors: ValueError where it lacks something."""
        ...

    def hide(self, batch: Batch, generator: torch.Generator | None) -> dict[str, tuple[Tensor, Tensor]]:
        """Input -> what is shown of it, what is hidden. generator: draws it; None: torch's own."""
        ...

    def error(self, name: str, batch: Batch, features: Features, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Of one input, from the projected Features of what was shown -> sum over what is hidden, its count"""
        ...


class Pretraining(Task):
    """Each objective learns of its inputs; all inputs are encoded once.

    objectives: name -> what makes one for a model.
    Errors: ValueError where an input is learnt of by none, or by two.
    """

    reads_heads = False
    unsharded = "what tells the hidden parts"

    def __init__(
        self, model: MultimodalModel, *args: Any, objectives: Mapping[str, Callable[..., Objective]], **kwargs: Any
    ):
        super().__init__(model, *args, **kwargs)
        if any(p.requires_grad for p in model.fusion.parameters()):  # type: ignore[attr-defined]
            raise ValueError(
                "this task looks at inputs before they are fused: nothing would train model.fusion; leave model/fusion "
                "out, or set model/fusion=sum"
            )
        if not objectives:
            raise ValueError(
                "task.objectives: got none; add one, as +task/objectives@task.objectives.text=masked_language"
            )
        for name in objectives:
            if not name.isidentifier() or name in dir(nn.ModuleDict):
                raise ValueError(
                    f"task.objectives.{name}: torch takes this name, or it is no plain word; choose another"
                )
        self.objectives: Mapping[str, Objective] = nn.ModuleDict(  # type: ignore[assignment]
            {name: make(model=model) for name, make in objectives.items()}  # type: ignore[dict-item]
        )
        self.owners = owners(self.objectives, model)
        names = {
            name: owner if len(self.objectives[owner].inputs) == 1 else f"{owner}/{name}"
            for name, owner in self.owners.items()
        }
        self.names = names  # of an input's loss
        self.means: Mapping[str, Mapping[str, Mean]] = nn.ModuleDict(  # type: ignore[assignment]
            {split: nn.ModuleDict({name: Mean() for name in names}) for split in ("val", "test")}
        )

    def setup(self, stage: str) -> None:
        super().setup(stage)
        for objective in self.objectives.values():
            objective.prepare(self.trainer.datamodule.transforms)  # type: ignore[attr-defined]

    def losses(self, batch: Batch) -> dict[str, tuple[Tensor, Tensor, float]]:
        found = self.measure(batch, None)
        return {self.names[name]: (*loss, self.objectives[self.owners[name]].weight) for name, loss in found.items()}

    def measure(self, batch: Batch, generator: torch.Generator | None) -> dict[str, tuple[Tensor, Tensor]]:
        """-> by input"""
        for name, x in batch.inputs.items():
            if not isinstance(x, Tensor):
                raise ValueError(f"task: the encoder of '{name}' is frozen: nothing of it would learn")
        parts = {n: part for o in self.objectives.values() for n, part in o.hide(batch, generator).items()}
        features = self.model.encode({name: shown for name, (shown, _) in parts.items()}, batch.masks)
        return {
            name: self.objectives[self.owners[name]].error(name, batch, features[name], hidden)
            for name, (_, hidden) in parts.items()
        }

    def val_names(self) -> dict[str, bool | None]:
        several = self.names.values() if len(self.names) > 1 else []
        return dict.fromkeys(["val/loss", *(f"val/{name}/loss" for name in several)], False)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.update("val", batch, batch_idx)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self.update("test", batch, batch_idx)

    def update(self, split: str, batch: Batch, batch_idx: int) -> None:
        """The same is hidden whenever a split is measured."""
        for name, (total, count) in self.measure(batch, torch.Generator().manual_seed(batch_idx)).items():
            self.means[split][name].update(total, count)

    def on_validation_epoch_end(self) -> None:
        self.log_dict(self.compute("val"))

    def on_test_epoch_end(self) -> None:
        values = self.compute("test")
        self.results = {name: float(value) for name, value in values.items()}
        self.log_dict(values)

    def compute(self, split: str) -> dict[str, Tensor]:
        """Name -> value; then everything starts anew."""
        losses = {
            self.names[name]: (mean.compute(), torch.ones_like(mean.count), self.objectives[self.owners[name]].weight)
            for name, mean in self.means[split].items()
        }
        for mean in self.means[split].values():
            mean.reset()
        return mean_losses(split, losses)


def owners(objectives: Mapping[str, Objective], model: MultimodalModel) -> dict[str, str]:
    """Input -> the objective that learns of it. Errors: ValueError where there is none, or are two."""
    found: dict[str, str] = {}
    for owner, objective in objectives.items():
        for name in objective.inputs:
            if name in found:
                raise ValueError(
                    f"task.objectives: '{found[name]}' and '{owner}' both learn of the input '{name}'; name each one's "
                    f"own, as task.objectives.{owner}.inputs=[...]"
                )
            found[name] = owner
    for name in model.inputs:
        if name not in found:
            modality = model.encoders[model.share.get(name, name)].input.modality
            raise ValueError(
                f"task.objectives: none learns of the input '{name}', which is {modality}; leave it out with "
                f"datamodule.inputs=[...], or add one with +task/objectives@task.objectives.{name}=..."
            )
    return found


def chosen(model: MultimodalModel, modality: str, inputs: Sequence[str] | None, what: str) -> list[str]:
    """The inputs of a modality, or those that are named. Errors: ValueError where one is of another, or none is."""
    of = {name: model.encoders[model.share.get(name, name)].input.modality for name in model.inputs}
    for name in inputs or ():
        if of.get(name) != modality:
            raise ValueError(
                f"task.objectives: {what} learns of {modality}, but got the input '{name}', which is "
                f"{of.get(name, 'none of ' + ', '.join(of))}"
            )
    found = [name for name in of if of[name] == modality] if inputs is None else list(inputs)
    if not found:
        raise ValueError(f"task.objectives: {what} learns of {modality}, but there is only {', '.join(of)}")
    return found
