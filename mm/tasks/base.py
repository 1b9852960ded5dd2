"""What every training objective shares: optimizer, schedule, and a loss that any number of processes divide alike."""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch
from lightning import LightningModule
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR

from mm.model import MultimodalModel
from mm.tasks import parameters
from mm.tasks.schedule import Schedule
from mm.types import Batch


def positive(count: Tensor) -> Tensor:
    """Counts to divide by: where nothing was counted, one. They may be fractions, as sums of class weights are."""
    return torch.where(count > 0, count, 1)


class Task(LightningModule):
    """A model and how it is trained. A child gives `losses`.

    optimizer: partial that takes parameter groups, None for a task that only tests; freeze, lr_scale, no_decay,
    layer_decay: see mm.tasks.parameters.
    """

    def __init__(
        self,
        model: MultimodalModel,
        optimizer: Callable[..., torch.optim.Optimizer] | None = None,
        scheduler: Schedule | None = None,
        freeze: Sequence[str] = (),
        lr_scale: Sequence[tuple[str, float]] = (),
        no_decay: Sequence[str] = (),
        layer_decay: float = 1.0,
    ):
        super().__init__()
        self.model = model
        self.optimizer = optimizer
        self.scheduler = scheduler
        self.lr_scale = dict(lr_scale)
        self.no_decay = list(no_decay)
        self.layer_decay = layer_decay
        parameters.freeze(model, freeze)
        self._seen: list[Tensor] = []  # labelled rows of all processes in each micro-batch since the last step

    def on_fit_start(self) -> None:
        """Dropout and augmentation differ between processes; weights don't, as they are made already."""
        torch.manual_seed(torch.initial_seed() + self.global_rank)

    @abstractmethod
    def losses(self, batch: Batch) -> dict[str, tuple[Tensor, Tensor, float]]:
        """Name -> (sum over this process's labelled rows, how many they are, weight)."""

    @abstractmethod
    def val_names(self) -> dict[str, bool | None]:
        """What validation logs, known before it has run -> whether higher is better; one of them is monitored."""

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The loss whose gradient, averaged over processes and accumulation, is that of the mean over labelled rows.

        With accumulation the counts of later micro-batches are not known yet. One head: each is divided by the first
        one's, and the gradient is put right before the optimizer's step, which is exact. Several: a single factor can't
        put them right; the step takes the mean of the micro-batches' means, each exact over processes.
        """
        losses = self.losses(batch)
        world = self.trainer.world_size
        counts = torch.stack([count for _, count, _ in losses.values()]).detach()
        if world > 1:
            counts = self.trainer.strategy.reduce(counts, reduce_op="sum")
        self._seen.append(counts)
        share = positive(self._seen[0] if len(losses) == 1 else counts)
        parts = torch.stack([weight * total for total, _, weight in losses.values()]) / share
        means = {name: (total / positive(count)).detach() for name, (total, count, _) in losses.items()}
        if len(losses) > 1:
            self.log_dict({f"train/{name}/loss": mean for name, mean in means.items()}, batch_size=len(batch.row))
        whole = torch.stack([weight * means[name] for name, (_, _, weight) in losses.items()]).sum()
        self.log("train/loss", whole, batch_size=len(batch.row), prog_bar=True)
        return parts.sum() * world

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Put the accumulated gradient right, before it is clipped.

        Lightning has divided every micro-batch by the accumulation, also where an epoch's last window is shorter.
        """
        if self.trainer.accumulate_grad_batches > 1:
            seen = torch.stack(self._seen)  # (micro-batches, heads)
            part = positive(seen[0]) / positive(seen.sum(0)) if seen.shape[1] == 1 else seen.new_ones(1) / len(seen)
            right = part * self.trainer.accumulate_grad_batches
            for group in optimizer.param_groups:
                for parameter in group["params"]:
                    if parameter.grad is not None:
                        parameter.grad.mul_(right)
        self._seen = []

    def configure_optimizers(self) -> Any:
        """Groups by the rules, and the schedule over all steps of the run."""
        schedule, total = self.scheduler, self.total_steps()
        assert self.optimizer is not None
        assert schedule is not None
        defaults = self.optimizer([torch.nn.Parameter(torch.zeros(1, 1))]).defaults
        groups = parameters.groups(
            self.model,
            defaults["lr"],
            defaults.get("weight_decay", 0.0),
            self.lr_scale,
            self.no_decay,
            self.layer_decay,
        )
        optimizer = self.optimizer(groups)
        scheduler = LambdaLR(optimizer, lambda step: schedule(step, total))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def total_steps(self) -> int:
        """Optimizer steps of the whole run; 1 where only time ends it.

        Not `trainer.estimated_stepping_batches`: read this early, it makes Lightning drop a resumed loader's state.
        """
        trainer = self.trainer
        if trainer.max_epochs in (None, -1):
            return max(1, trainer.max_steps)
        batches = len(trainer.datamodule.train_dataloader())  # type: ignore[attr-defined]
        limit = trainer.limit_train_batches
        batches = min(batches, limit) if isinstance(limit, int) else int(batches * limit)
        steps = -(-batches // trainer.accumulate_grad_batches) * trainer.max_epochs
        return max(1, steps if trainer.max_steps == -1 else min(steps, trainer.max_steps))
