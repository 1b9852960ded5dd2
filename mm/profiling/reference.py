"""A plain PyTorch training loop without Lightning, as the reference for a benchmark."""

import torch
from lightning import Trainer
from lightning.fabric.utilities import move_data_to_device
from torch import Tensor

from mm.data_source import data_source
from mm.profiling.flops import HALF
from mm.tasks.base import Task
from mm.tasks.measures import positive
from mm.types import Batch


class ReferenceLoop:
    """Plain PyTorch training loop with the same model, loss, precision, clipping and accumulation as a Trainer.

    It has an optimizer and a learning rate schedule of its own, with the same settings as those of the task.

    Args:
        task: The task to train.
        trainer: The Trainer, with the settings for device, precision, clipping and accumulation.

    Raises:
        ValueError: If the precision is not "32-true", "bf16-mixed" or "16-mixed".
    """

    def __init__(self, task: Task, trainer: Trainer):
        self.task = task
        self.finish = data_source(trainer).finish
        self.device = trainer.strategy.root_device
        built = task.configure_optimizers()
        self.optimizer: torch.optim.Optimizer = built["optimizer"]
        self.schedule = built["lr_scheduler"]["scheduler"]
        precision = str(trainer.precision)
        if precision != "32-true" and precision not in HALF:
            raise ValueError(f"trainer.precision: got {precision}, wanted 32-true, {' or '.join(HALF)} to compare with")
        self.half = HALF.get(precision)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.half == torch.float16)
        self.clip = trainer.gradient_clip_val
        self.accumulate = trainer.accumulate_grad_batches
        self.parameters = [p for p in task.parameters() if p.requires_grad]
        self.batches = 0

    def loss(self, batch: Batch) -> Tensor:
        """Return the loss of a batch that is on the device."""
        batch = self.finish(batch)
        with torch.autocast(self.device.type, self.half, enabled=self.half is not None):
            losses = self.task.losses(batch)
            return torch.stack([weight * total / positive(count) for total, count, weight in losses.values()]).sum()

    def step(self, batch: Batch) -> None:
        """Train on a batch. The optimizer takes a step when the gradients of enough batches are accumulated."""
        if self.device.type != "cpu":
            batch = move_data_to_device(batch, self.device)
        if self.batches % self.accumulate == 0:
            self.optimizer.zero_grad()
        self.scaler.scale(self.loss(batch) / self.accumulate).backward()
        self.batches += 1
        if self.batches % self.accumulate == 0:
            self.scaler.unscale_(self.optimizer)
            if self.clip:
                torch.nn.utils.clip_grad_norm_(self.parameters, self.clip)
            self.scaler.step(self.optimizer)
            self.scaler.update()
            self.schedule.step()
