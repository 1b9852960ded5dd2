"""Unimodal heads and teachers: predictions from one input alone, as probes or for training, and distillation."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from mm.messages import near
from mm.model import MultimodalModel
from mm.protocols import Offers
from mm.tensors import unlabelled_value
from mm.types import Features, Output


@runtime_checkable
class Resettable(Protocol, metaclass=Offers):
    """A layer with `reset_parameters`, which draws new initial weights, like those of torch."""

    def reset_parameters(self) -> None: ...


@dataclass(frozen=True)
class Distillation:
    """Trained models whose vector of an input is imitated (UMT, Du 2021).

    Attributes:
        teachers: Input name to the model that teaches this input.
        weight: Factor on the squared distance between the projected vectors.

    Raises:
        ValueError: If the weight is out of range.
    """

    teachers: Mapping[str, MultimodalModel] | None = None
    weight: float = 50.0

    def __post_init__(self) -> None:
        if not 0 <= self.weight < float("inf"):
            raise ValueError(f"task.distillation.weight: got {self.weight}, wanted 0 or more")


def resolve_loss_weights(
    given: float | Mapping[str, float] | None, probes: bool, inputs: list[str]
) -> dict[str, float]:
    """Return the loss weight of each input that has unimodal heads; with weight 0 they are probes.

    Args:
        given: `task.unimodal_loss_weight`: one weight for all inputs, or input name to weight.
        probes: `task.unimodal_probes`.
        inputs: Inputs of the model.

    Raises:
        ValueError: If an input is unknown, if a weight is negative, or if a single weight of 0 is given for all inputs.
    """
    if not isinstance(given, Mapping) and given is not None and given == 0:
        raise ValueError(
            "task.unimodal_loss_weight: got 0, by which no encoder learns anything; for heads that only measure set "
            "task.unimodal_probes=true"
        )
    weights: dict[str, float] = dict.fromkeys(inputs, given) if isinstance(given, int | float) else dict(given or {})
    for name, weight in weights.items():
        check_input("unimodal_loss_weight", name, inputs)
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight < float("inf"):
            raise ValueError(f"task.unimodal_loss_weight: got {weight} for '{name}', wanted 0 or more, or null")
    return weights | {name: 0.0 for name in inputs if probes and name not in weights}


def check_input(option: str, name: str, inputs: list[str]) -> None:
    """Raise ValueError if the model has no input of a name."""
    if name not in inputs:
        raise ValueError(f"task.{option}: there is no input '{name}', only {', '.join(inputs)}{near(name, inputs)}")


def fresh(head: nn.Module) -> nn.Module:
    """Return a copy of a head with newly initialised weights."""
    found = copy.deepcopy(head)
    for layer in found.modules():
        if isinstance(layer, Resettable):
            layer.reset_parameters()
    return found


def own_heads(model: MultimodalModel, inputs: list[str]) -> nn.ModuleDict:
    """Return the unimodal heads: input name to target name to a new head that reads this input alone."""
    return nn.ModuleDict(
        {name: nn.ModuleDict({target: fresh(head) for target, head in model.heads.items()}) for name in inputs}  # type: ignore[arg-type]
    )


def read_alone(
    heads: nn.ModuleDict, features: Features, targets: Mapping[str, Tensor], weight: float = 0.0
) -> tuple[Output, dict[str, Tensor]]:
    """Predict the targets from one input alone with its unimodal heads.

    Args:
        heads: Target name to unimodal head.
        features: Projected Features of the input.
        targets: Target name to targets.
        weight: Factor on the gradient that reaches the Features; that of the heads is not scaled.

    Returns:
        The output, and the targets, which are unlabelled in rows that lack the input.
    """
    features = features._replace(tokens=scale(features.tokens, weight), pooled=scale(features.pooled, weight))
    present = features.mask.any(1)
    targets = {name: unlabel(targets[name], present) for name in heads}
    return Output({name: head(features, targets[name]) for name, head in heads.items()}, features, {}), targets


def scale(x: Tensor, weight: float) -> Tensor:
    """Return a tensor with the same values, whose gradient is multiplied by a weight; with 0 there is no gradient."""
    return torch.lerp(x.detach(), x, weight) if weight else x.detach()


def unlabel(target: Tensor, present: Tensor) -> Tensor:
    """Return targets in which absent rows are unlabelled.

    Args:
        target: The targets, (B, ...).
        present: Whether each row is present, (B,) bool.
    """
    away = ~present.view(-1, *[1] * (target.ndim - 1))
    return target.masked_fill(away, unlabelled_value(target))


def check_teacher(name: str, teacher: MultimodalModel, model: MultimodalModel) -> None:
    """Check that a model can teach an input of another model.

    Raises:
        ValueError: If one of them lacks the input, or if they differ in `embed_dim`.
    """
    check_input("distillation.teachers", name, model.inputs)
    if name not in teacher.inputs:
        raise ValueError(
            f"task.distillation.teachers.{name}: the teacher has no such input, only {', '.join(teacher.inputs)}"
        )
    theirs, ours = (m.projections[m.shared_encoders.get(name, name)].out_features for m in (teacher, model))
    if theirs != ours:
        raise ValueError(
            f"task.distillation.teachers.{name}: its model.embed_dim is {theirs}, this model's is {ours}; train one of "
            "them anew with the other's"
        )


def teacher_loss(
    teacher: MultimodalModel, name: str, x: Tensor | Features, mask: Tensor, student: Features
) -> tuple[Tensor, Tensor]:
    """Return the sum of the squared distances between the pooled vectors of teacher and student, and the row count.

    This is the distillation loss of UMT (Du 2021).

    Args:
        teacher: The teacher.
        name: Name of the input.
        x: The input, as in Batch.
        mask: Mask of the input, as in Batch.
        student: Projected Features of the trained model for this input. Rows that lack the input do not count.

    Raises:
        ValueError: If the batch has precomputed features instead of the input.
    """
    if isinstance(x, Features):
        raise ValueError(
            f"task.distillation.teachers.{name}: the encoder that it teaches is frozen and computed once, so that "
            "there is nothing for the teacher to read; set cache_features=false, or leave the teacher out"
        )
    part = teacher.shared_encoders.get(name, name)
    with torch.no_grad():
        goal = teacher.projections[part](teacher.encoders[part](x, mask).pooled)
    present = student.mask.any(1)
    distance = (student.pooled.float() - goal.float()).square().mean(1)  # (B,)
    return (distance * present).sum(), present.sum().float()
