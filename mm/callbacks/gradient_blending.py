"""Gradient blending: what learns in general weighs more, what learns by heart less (Wang 2020)."""

from collections.abc import Mapping
from itertools import islice
from typing import Any, NamedTuple

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.fabric.utilities import move_data_to_device

from mm.data_source import data_source

SMALLEST = 1e-3  # of the growth of a gap between losses: what is smaller is noise


class Measured(NamedTuple):
    """Mean losses at one moment."""

    train: float
    val: float


class GradientBlending(Callback):
    """Weight the losses of the model and of each input's own heads by how they generalise (Wang 2020).

    Training and validation losses are measured before the first epoch and after every `every_n_epochs`, and set the
    weights by how they have changed since. This takes a pass over both splits, without dropout and augmentation. The
    weights add up to one; those of the start are the task's. Unlike the paper, which trains copies of the model on
    each loss alone for the measurement, it measures the run itself.

    Args:
        every_n_epochs: Epochs between two measurements.

    Raises:
        ValueError: If an input has no heads of its own.
    """

    def __init__(self, every_n_epochs: int = 5):
        if every_n_epochs < 1:
            raise ValueError(f"callbacks.gradient_blending.every_n_epochs: got {every_n_epochs}, wanted 1 or more")
        self.every_n_epochs = every_n_epochs
        self.before: dict[str, Measured] = {}  # input, "" for the whole model -> its losses when last measured
        self.weights: dict[str, float] = {}  # the same names

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        task: Any = pl_module
        if stage == "fit" and set(task.unimodal_loss_weight) != set(task.model.inputs):
            raise ValueError(
                "callbacks=gradient_blending weighs each input's own heads; set task.unimodal_loss_weight to the "
                f"number that they all start with, such as 1: it is {task.unimodal_loss_weight or None}"
            )

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.before:  # the run goes on
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
        """Nothing where no weights were found yet."""
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
    """Losses of two moments -> weights that add up to one, nothing where no validation loss has fallen.

    Proportional to G / O^2: G, what the validation loss has fallen by, at least 0; O, what the gap between validation
    and training loss has grown by, at least SMALLEST.
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
    """Input, "" for the whole model -> its losses, all processes and heads together, of the run's batches."""
    modes = {module: module.training for module in task.modules()}
    task.eval()
    task.on_validation_start()
    found: list[dict[str, float]] = []
    data: Any = data_source(trainer)  # also the LightningDataModule, with the hook of its trainer
    for split in ("train", "val"):
        sums: dict[tuple[str, str], torch.Tensor] = {}
        weights: dict[tuple[str, str], float] = {}
        loader = data.loader(split)
        val = limit(len(loader), trainer.limit_val_batches) or len(loader)  # 0: a run that does not validate
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
    """Lightning's: a part of them where it is no whole number, all where there is none."""
    if most is None:
        return batches
    return int(batches * most) if isinstance(most, float) else min(batches, most)
