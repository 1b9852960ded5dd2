"""Self-supervised pre-training: predict masked or later parts of the inputs from the rest, without labels."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mm.data_source import data_source
from mm.model import MultimodalModel
from mm.tasks.base import Task
from mm.tasks.distributed.gathering import logged
from mm.tasks.measures import Mean, mean_losses
from mm.types import Batch, Features


class Objective(nn.Module, ABC):
    """Base class of a self-supervised objective, which corrupts some inputs and predicts the missing parts.

    Its weights are not part of the exported model.

    Attributes:
        inputs: Names of the inputs that the objective trains.
        losses: Name of each loss to its weight.
        gathers: Whether rows are compared with those of other processes.
    """

    inputs: Sequence[str]
    losses: Mapping[str, float]
    gathers = False

    def prepare(self, transforms: Mapping[str, Any]) -> None:
        """Read facts from the transforms of the inputs, before the first batch.

        Args:
            transforms: Input name to transform.

        Raises:
            ValueError: If a transform lacks a required property, such as a mask token.
        """
        return

    @abstractmethod
    def corrupt(self, batch: Batch, generator: torch.Generator | None) -> dict[str, tuple[Tensor | Features, Tensor]]:
        """Corrupt the inputs of a batch.

        Args:
            batch: The batch.
            generator: Random generator of the masks; None: torch's default generator.

        Returns:
            Input name to the corrupted input, and a mask of the parts to predict.
        """

    @abstractmethod
    def compute_loss(
        self, batch: Batch, features: dict[str, Features], hidden: dict[str, Tensor]
    ) -> dict[str, tuple[Tensor, Tensor]]:
        """Compute the losses from the projected Features of the corrupted inputs.

        Args:
            batch: The batch, which is not corrupted.
            features: Input name to projected Features of the corrupted input.
            hidden: Input name to the mask of the parts to predict, from `corrupt`.

        Returns:
            Name of each loss to its sum over the predicted parts and their number.
        """

    def metric_names(self) -> dict[str, dict[str, bool]]:
        """Return the metrics besides the losses: compared inputs ("": all) to metric to whether higher is better."""
        return {}

    def metrics(self) -> dict[str, dict[str, Tensor]]:
        """Compute and reset the metrics of `metric_names`, over all processes and all evaluated batches."""
        return {}

    def export_config(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """Return plain data that is stored in the model directory.

        Args:
            config: The config from which the objective was built.
        """
        return {}


class Pretraining(Task):
    """Train the encoders on one or several self-supervised objectives.

    Args:
        model: The model.
        *args: Arguments of `Task`.
        objectives: Name to a function that builds the objective for a model.
        **kwargs: Arguments of `Task`.

    Raises:
        ValueError: If no objective trains an input, or if two objectives of the same kind train the same input.
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
            raise ValueError("task.objectives: got none; add one, as +task/objectives@task.objectives.text=masked_lm")
        for name in objectives:
            if not name.isidentifier() or name in dir(nn.ModuleDict):
                raise ValueError(
                    f"task.objectives.{name}: torch takes this name, or it is no plain word; choose another"
                )
        self.objectives: Mapping[str, Objective] = nn.ModuleDict(  # type: ignore[assignment]
            {name: make(model=model) for name, make in objectives.items()}
        )
        check_objectives(self.objectives, model)
        self.gathers = any(objective.gathers for objective in self.objectives.values())
        self.weights = {
            loss_name(name, loss, objective): weight
            for name, objective in self.objectives.items()
            for loss, weight in objective.losses.items()
        }
        self.means: Mapping[str, Mapping[str, Mean]] = nn.ModuleDict(  # type: ignore[assignment]
            {split: nn.ModuleDict({name: Mean() for name in self.weights}) for split in ("val", "test")}
        )

    def setup(self, stage: str) -> None:
        super().setup(stage)
        self.prepare(data_source(self.trainer).transforms)

    def prepare(self, transforms: Mapping[str, Any]) -> None:
        """Give the transforms of the inputs to the objectives."""
        for objective in self.objectives.values():
            objective.prepare(transforms)

    def losses(self, batch: Batch) -> dict[str, tuple[Tensor, Tensor, float]]:
        return {name: (*loss, self.weights[name]) for name, loss in self.measure(batch, None).items()}

    def measure(self, batch: Batch, generator: torch.Generator | None) -> dict[str, tuple[Tensor, Tensor]]:
        """Return the losses of all objectives for a batch: name to sum and count."""
        found = {}
        for name, objective in self.objectives.items():
            features, hidden = self.encode(objective, batch, generator)
            errors = objective.compute_loss(batch, features, hidden)
            found |= {loss_name(name, loss, objective): error for loss, error in errors.items()}
        return found

    def encode(
        self, objective: Objective, batch: Batch, generator: torch.Generator | None
    ) -> tuple[dict[str, Features], dict[str, Tensor]]:
        """Corrupt and encode the inputs of an objective.

        Returns:
            Input name to projected Features of the corrupted input, and input name to the mask of the parts to predict.
        """
        parts = objective.corrupt(batch, generator)
        features = {name: self.model.encode_input(name, x, batch.masks[name]) for name, (x, _) in parts.items()}
        return features, {name: hidden for name, (_, hidden) in parts.items()}

    def replay(self, batch: Batch) -> Any:
        return [self.encode(objective, batch, None) for objective in self.objectives.values()]

    def val_names(self) -> dict[str, bool | None]:
        several = self.weights if len(self.weights) > 1 else []
        losses: dict[str, bool | None] = dict.fromkeys(["val/loss", *(f"val/{name}/loss" for name in several)], False)
        for name, objective in self.objectives.items():
            losses |= log_metrics("val", name, objective.metric_names())
        return losses

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.update("val", batch, batch_idx)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self.update("test", batch, batch_idx)

    def update(self, split: str, batch: Batch, batch_idx: int) -> None:
        """Evaluate the objectives on a batch, with masks that are seeded so that they are the same in every evaluation.

        Args:
            split: Name of the split, such as "val".
            batch: The batch.
            batch_idx: Index of the batch in the split; it seeds the masks.
        """
        for name, (total, count) in self.measure(batch, torch.Generator().manual_seed(batch_idx)).items():
            self.means[split][name].update(total, count)

    def on_validation_epoch_end(self) -> None:
        self.log_dict(logged(self.compute("val")))

    def on_test_epoch_end(self) -> None:
        values = self.compute("test")
        self.results = {name: float(value) for name, value in values.items()}
        self.log_dict(values)

    def compute(self, split: str) -> dict[str, Tensor]:
        """Return the metrics of a split by name, and reset them."""
        losses = {
            name: (mean.compute(), torch.ones_like(mean.count), self.weights[name])
            for name, mean in self.means[split].items()
        }
        for mean in self.means[split].values():
            mean.reset()
        values = mean_losses(split, losses)
        for name, objective in self.objectives.items():
            values |= log_metrics(split, name, objective.metrics())
        return values

    def export_config(self, config: Mapping[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, objective in self.objectives.items():
            found |= objective.export_config(config["objectives"][name])
        return found


def loss_name(name: str, loss: str, objective: Objective) -> str:
    """Return the name under which a loss of an objective is logged."""
    return name if len(objective.losses) == 1 else f"{name}/{loss}"


def log_metrics(split: str, name: str, metrics: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the metrics of an objective under their logged names, such as `val[text->vision]/recall@1`.

    Args:
        split: Name of the split.
        name: Name of the objective, for metrics of all its inputs.
        metrics: Compared inputs ("": all) to metric to value.
    """
    places = {part: f"{split}[{part}]" if part else f"{split}/{name}" for part in metrics}
    return {f"{places[part]}/{metric}": value for part, of in metrics.items() for metric, value in of.items()}


def check_objectives(objectives: Mapping[str, Objective], model: MultimodalModel) -> None:
    """Check that each input is trained, but not by two objectives of the same kind.

    Raises:
        ValueError: If no objective trains an input, or if two objectives of the same kind train the same input.
    """
    found: dict[tuple[type, str], str] = {}
    for owner, objective in objectives.items():
        for name in objective.inputs:
            other = found.setdefault((type(objective), name), owner)
            if other != owner:
                raise ValueError(
                    f"task.objectives: '{other}' and '{owner}' both learn of the input '{name}', and alike; name each "
                    f"one's own, as task.objectives.{owner}.inputs=[...]"
                )
    learnt = {name for _, name in found}
    for name in model.inputs:
        if name not in learnt:
            modality = model.encoders[model.shared_encoders.get(name, name)].input.modality
            raise ValueError(
                f"task.objectives: none learns of the input '{name}', which is {modality}; leave it out with "
                f"datamodule.inputs=[...], or add one with +task/objectives@task.objectives.{name}=..."
            )


def raw(batch: Batch, name: str) -> Tensor:
    """Return an input of a batch before its encoder.

    Raises:
        ValueError: If the encoder is frozen, so that the batch has only its precomputed Features.
    """
    x = batch.inputs[name]
    if not isinstance(x, Tensor):
        raise ValueError(f"task: the encoder of '{name}' is frozen: nothing of it would learn")
    return x


def select_inputs(model: MultimodalModel, modality: str, inputs: Sequence[str] | None, objective: str) -> list[str]:
    """Return the inputs of a modality, or the given ones after checking their modality.

    Args:
        model: The model.
        modality: Name of the modality.
        inputs: Names of the inputs; None: all inputs of the modality.
        objective: Name of the objective, for error messages.

    Raises:
        ValueError: If an input has another modality, or if there is none of this modality.
    """
    of = {name: model.encoders[model.shared_encoders.get(name, name)].input.modality for name in model.inputs}
    for name in inputs or ():
        if of.get(name) != modality:
            raise ValueError(
                f"task.objectives: {objective} learns of {modality}, but got the input '{name}', which is "
                f"{of.get(name, 'none of ' + ', '.join(of))}"
            )
    found = [name for name in of if of[name] == modality] if inputs is None else list(inputs)
    if not found:
        raise ValueError(f"task.objectives: {objective} learns of {modality}, but there is only {', '.join(of)}")
    return found
