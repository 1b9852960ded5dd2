"""Gradient blending: raise the weights of losses that generalise and lower those of losses that overfit (Wang 2020)."""

from collections.abc import Mapping
from itertools import islice
from typing import Any, NamedTuple

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.fabric.utilities import move_data_to_device

from mm.data_source import data_source

SMALLEST = 1e-3  # minimum growth of the gap between two losses; smaller values are noise


class Measured(NamedTuple):
    """Mean training and validation loss at one time."""

    train: float
    val: float


class GradientBlending(Callback):
    """Weight the losses of the model and of the unimodal heads by how well they generalise (Wang 2020).

    Unimodal heads are those that read a single input. The losses on the training and validation splits are evaluated
    before the first epoch and after every `every_n_epochs` epochs, without dropout and augmentation. Each evaluation is
    one pass over both splits. The change of the losses since the last evaluation determines the weights, which add up
    to one; the initial weights are those of the task. The paper trains a copy of the model on each loss alone for this
    purpose; here the losses of the run itself are used.

    Args:
        every_n_epochs: Number of epochs between two evaluations.

    Raises:
        ValueError: If an input does not have its own heads (`task.unimodal_loss_weight`), or if `every_n_epochs` is
            below 1.
    """

    def __init__(self, every_n_epochs: int = 5):
        if every_n_epochs < 1:
            raise ValueError(f"callbacks.gradient_blending.every_n_epochs: got {every_n_epochs}, wanted 1 or more")
        self.every_n_epochs = every_n_epochs
        self.before: dict[str, Measured] = {}  # input ("" for the complete model) to its last evaluated losses
        self.weights: dict[str, float] = {}  # input ("" for the complete model) to the weight of its loss

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        task: Any = pl_module
        if stage == "fit" and set(task.unimodal_loss_weight) != set(task.model.inputs):
            raise ValueError(
                "callbacks=gradient_blending weighs each input's own heads; set task.unimodal_loss_weight to the "
                f"number that they all start with, such as 1: it is {task.unimodal_loss_weight or None}"
            )

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.before:  # the run was resumed
            self.apply(pl_module)
        else:
            self.before = measure(trainer, pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if (trainer.current_epoch + 1) % self.every_n_epochs:
            return
        now = measure(trainer, pl_module)
        self.weights = blend(self.before, now) or self.weights
        self.before = now
        self.apply(pl_module)
        inputs = {f"train[{n}]/unimodal_loss_weight": x for n, x in self.weights.items() if n}
        if self.weights:
            pl_module.log_dict({"train/fused_weight": self.weights[""]} | inputs)

    def apply(self, task: Any) -> None:
        """Set the weights of the task's losses. Nothing changes before the first weights are computed."""
        for name, weight in self.weights.items():
            if name:
                task.unimodal_loss_weight[name] = weight
            else:
                task.fused_weight = weight

    def state_dict(self) -> dict[str, Any]:
        return {"before": {name: list(pair) for name, pair in self.before.items()}, "weights": self.weights}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.before = {name: Measured(*pair) for name, pair in state_dict["before"].items()}
        self.weights = state_dict["weights"]


def blend(before: Mapping[str, Measured], after: Mapping[str, Measured]) -> dict[str, float]:
    """Compute the weights of the losses from their values at two times.

    A weight is proportional to G / O^2. G is the decrease of the validation loss, at least 0. O is the growth of the
    gap between validation and training loss, at least `SMALLEST`.

    Args:
        before: Input ("" for the complete model) to its earlier losses.
        after: Input to its later losses.

    Returns:
        Input to its weight; the weights add up to one. Empty if no validation loss has decreased.
    """
    parts = {}
    for name, (train, val) in after.items():
        gain = max(0.0, before[name].val - val)
        growth = (val - train) - (before[name].val - before[name].train)
        parts[name] = gain / max(abs(growth), SMALLEST) ** 2
    total = sum(parts.values())
    return {name: part / total for name, part in parts.items()} if total else {}


@torch.no_grad()
def measure(trainer: Trainer, task: Any) -> dict[str, Measured]:
    """Evaluate the training and validation losses of a task over all processes and heads.

    As many batches are evaluated as the run uses.

    Args:
        trainer: The Trainer.
        task: The task.

    Returns:
        Input ("" for the complete model) to its losses.
    """
    modes = {module: module.training for module in task.modules()}
    task.eval()
    task.on_validation_start()
    found: list[dict[str, float]] = []
    data: Any = data_source(trainer)  # also a LightningDataModule, which has the hook of its Trainer
    for split in ("train", "val"):
        sums: dict[tuple[str, str], torch.Tensor] = {}
        weights: dict[tuple[str, str], float] = {}
        loader = data.loader(split)
        val = limit(len(loader), trainer.limit_val_batches) or len(loader)  # 0: the run does not validate
        most = trainer.num_training_batches if split == "train" else val
        for batch in islice(loader, int(most)):
            batch = data.on_after_batch_transfer(move_data_to_device(batch, task.device), 0)
            with trainer.precision_plugin.forward_context():
                losses = task.by_input(task.losses(batch))
            for name, of in losses.items():
                for head, (total, count, weight) in of.items():
                    weights[name, head] = weight
                    sums[name, head] = sums.get((name, head), 0) + torch.stack([total, count])
        table = torch.stack(list(sums.values()))  # (inputs and heads, 2)
        if trainer.world_size > 1:
            table = trainer.strategy.reduce(table, reduce_op="sum")
        means = (table[:, 0] / table[:, 1].clamp(min=1e-9)).tolist()
        found.append({})
        for (name, head), mean in zip(sums, means):
            found[-1][name] = found[-1].get(name, 0.0) + weights[name, head] * mean
    for module, mode in modes.items():
        module.training = mode
    return {name: Measured(found[0][name], found[1][name]) for name in found[0]}


def limit(batches: int, most: int | float | None) -> int:
    """Apply a limit on batches as Lightning does: a float is a fraction, an int a maximum, and None no limit.

    Args:
        batches: Number of batches.
        most: The limit.

    Returns:
        The limited number of batches.
    """
    if most is None:
        return batches
    return int(batches * most) if isinstance(most, float) else min(batches, most)
