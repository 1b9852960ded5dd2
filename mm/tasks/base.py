"""What every training objective shares: optimizer, schedule, and a loss that any number of processes divide alike."""

import warnings
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch
from lightning import LightningModule
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel
from torch.optim.lr_scheduler import LambdaLR

from mm.model import MultimodalModel
from mm.tasks import parameters
from mm.tasks.nonfinite import NonFinite
from mm.tasks.schedule import Schedule
from mm.tasks.sharding import Sharded, checkpoint_activations, share_statistics
from mm.types import Batch


def positive(count: Tensor) -> Tensor:
    """Counts to divide by: where nothing was counted, one. They may be fractions, as sums of class weights are."""
    return torch.where(count > 0, count, 1)


class Task(LightningModule):
    """A model and how it is trained. A child gives `losses`.

    optimizer: partial that takes parameter groups, None for a task that only tests; freeze, lr_scale, no_decay,
    layer_decay: see mm.tasks.parameters; activation_checkpointing: see mm.tasks.sharding; nonfinite: what is done
    about a loss or a gradient that is not finite, None for a task that only tests.
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
        activation_checkpointing: Sequence[str] = (),
        nonfinite: NonFinite | None = None,
    ):
        super().__init__()
        self.model = model
        self.optimizer = optimizer
        self.scheduler = scheduler
        self.lr_scale = dict(lr_scale)
        self.no_decay = list(no_decay)
        self.layer_decay = layer_decay
        self.nonfinite = nonfinite
        self.seed = torch.initial_seed()
        parameters.freeze(model, freeze)
        for encoder in model.encoders.values():
            if not any(p.requires_grad for p in encoder.parameters()):  # type: ignore[attr-defined]
                encoder.eval()  # type: ignore[attr-defined]
        checkpoint_activations(model, activation_checkpointing)
        self._losses: dict[str, tuple[Tensor, Tensor, float]] = {}  # of the last batch: name -> total, count, weight
        self._seen: list[Tensor] = []  # labelled rows of all processes in each micro-batch since the last step

    def configure_model(self) -> None:
        """Every process has built the same model; under trainer=fsdp each keeps its part."""
        if isinstance(self.trainer.strategy, Sharded):
            self.trainer.strategy.shard(self.model)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """What is random in a step follows from seed, epoch, batch and process alone: a resumed run repeats it."""
        self._last = batch, batch_idx
        seed = hash((self.seed, self.current_epoch, batch_idx, self.global_rank)) & 0xFFFFFFFF
        torch.default_generator.manual_seed(seed)
        if self.device.type == "cuda":  # torch.manual_seed asks every kind of device: 0.5 ms where there is none
            torch.cuda.manual_seed(seed)

    def on_validation_start(self) -> None:
        if self.trainer.world_size > 1:
            share_statistics(self.model)

    on_test_start = on_validation_start

    @abstractmethod
    def losses(self, batch: Batch) -> dict[str, tuple[Tensor, Tensor, float]]:
        """Name -> (sum over this process's labelled rows, how many they are, weight)."""

    @abstractmethod
    def val_names(self) -> dict[str, bool | None]:
        """What validation logs, known before it has run -> whether higher is better; one of them is monitored."""

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor | None:
        """The loss whose gradient, averaged over processes and accumulation, is that of the mean over labelled rows.

        With accumulation the counts of later micro-batches are not known yet. One head: each is divided by the first
        one's, and the gradient is put right before the optimizer's step, which is exact. Several: a single factor can't
        put them right; the step takes the mean of the micro-batches' means, each exact over processes.
        """
        skipping = self.nonfinite is not None and self.nonfinite.policy == "skip"
        buffers = {n: b.clone() for n, b in self.model.named_buffers()} if skipping else {}
        losses = self.losses(batch)
        world = self.trainer.world_size
        totals = torch.stack([total for total, _, _ in losses.values()])
        wrong = (~totals.detach().isfinite()).any()
        counts = torch.stack([*(count for _, count, _ in losses.values()), wrong.to(totals.dtype)]).detach()
        if world > 1:
            counts = self.trainer.strategy.reduce(counts, reduce_op="sum")
        if counts[-1]:
            self.meet_nonfinite("the loss", batch, batch_idx, mine=bool(wrong))
            for name, buffer in self.model.named_buffers():  # batch norm has taken the batch in
                buffer.copy_(buffers[name])
            self._losses = {}
            return None  # in all processes at once: none waits for another's gradients
        counts = counts[:-1]
        self._seen.append(counts)
        share = positive(self._seen[0] if len(losses) == 1 else counts)
        parts = torch.stack([weight * total for total, _, weight in losses.values()]) / share
        self._losses = {n: (total.detach(), count.detach(), weight) for n, (total, count, weight) in losses.items()}
        return parts.sum() * world

    def train_losses(self) -> dict[str, Tensor]:
        """Of the last batch, for loggers and bar: train/loss and, of several heads, each one's. Nothing if skipped."""
        means = {name: total / positive(count) for name, (total, count, _) in self._losses.items()}
        found = {f"train/{name}/loss": mean for name, mean in means.items()} if len(means) > 1 else {}
        if means:
            found["train/loss"] = torch.stack([self._losses[name][2] * mean for name, mean in means.items()]).sum()
        return found

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """Log the losses of steps that the loggers take: more often nobody sees it, and it costs 0.3 ms."""
        trainer: Any = self.trainer
        if self.global_step % trainer.log_every_n_steps == 0 or trainer.should_stop:
            self.log_dict(self.train_losses(), batch_size=len(batch.row))

    def on_after_backward(self) -> None:
        """Errors: ValueError for what DDP says a step later, without a name."""
        wrapped = self.trainer.strategy.model
        if self.global_step or not isinstance(wrapped, DistributedDataParallel) or wrapped.find_unused_parameters:
            return
        missed = [n for n, p in self.model.named_parameters() if p.requires_grad and p.grad is None]
        if missed:
            raise ValueError(
                f"no gradient reaches {', '.join(missed)}, but DDP waits for it; leave out what is not used (a fusion "
                "that reads tokens makes no use of pool=attention), freeze it with task.freeze, or set "
                "trainer.strategy=ddp_find_unused_parameters_true"
            )

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Put the accumulated gradient right, before it is clipped.

        Lightning has divided every micro-batch by the accumulation, also where an epoch's last window is shorter.
        """
        if self.trainer.accumulate_grad_batches > 1 and self._seen:
            seen = torch.stack(self._seen)  # (micro-batches, heads)
            part = positive(seen[0]) / positive(seen.sum(0)) if seen.shape[1] == 1 else seen.new_ones(1) / len(seen)
            right = (part * self.trainer.accumulate_grad_batches).squeeze()  # one number, also for sharded gradients
            for group in optimizer.param_groups:
                for parameter in group["params"]:
                    if parameter.grad is not None:
                        parameter.grad.mul_(right)
        self._seen = []

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip by the norm of all gradients, which is logged; where it is not finite, no weight changes."""
        given = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        if not given:  # the step was skipped
            return
        norm = torch.nn.utils.get_total_norm([p.grad for p in given])
        norm = norm.full_tensor() if isinstance(norm, DTensor) else norm
        if (
            not norm.isfinite() and getattr(self.trainer.precision_plugin, "scaler", None) is None
        ):  # a scaler skips such steps itself
            self.meet_nonfinite("the gradient", *self._last, mine=True)
            optimizer.zero_grad()
            return
        every: int = self.trainer.log_every_n_steps  # type: ignore[attr-defined]
        if (self.global_step + 1) % every == 0:  # logging costs a tenth of a millisecond
            self.log("train/grad_norm", norm)
        if gradient_clip_algorithm == "value":
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)
        elif gradient_clip_val:
            torch.nn.utils.clip_grads_with_norm_(given, gradient_clip_val, norm)

    def meet_nonfinite(self, what: str, batch: Batch, batch_idx: int, mine: bool) -> None:
        """Tell of this process's batch; mine: it is at fault. Errors: ValueError or DistError to stop the run."""
        assert self.nonfinite is not None

        def again() -> Any:
            self.on_train_batch_start(batch, batch_idx)
            return self.losses(batch)

        if not mine:
            if isinstance(self.trainer.strategy, Sharded):  # no process computes alone
                with torch.no_grad():
                    again()
            if self.nonfinite.policy == "raise":
                # Of this type, so that what is told is the other's message.
                raise torch.distributed.DistError(f"{what} of step {self.global_step} is not finite in another process")
            return
        table = self.trainer.datamodule.table  # type: ignore[attr-defined]
        names = [table.ids[row] for row in batch.row.tolist() if row >= 0]
        warnings.warn(self.nonfinite.meet(self.model, batch, self.global_step, what, names, again), stacklevel=2)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["skipped_steps"] = 0 if self.nonfinite is None else self.nonfinite.skipped

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if self.nonfinite is not None:
            self.nonfinite.skipped = checkpoint["skipped_steps"]

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
        batches = len(trainer.datamodule.loader("train", train=True))  # type: ignore[attr-defined]
        limit = trainer.limit_train_batches
        batches = min(batches, limit) if isinstance(limit, int) else int(batches * limit)
        steps = -(-batches // trainer.accumulate_grad_batches) * trainer.max_epochs
        return max(1, steps if trainer.max_steps == -1 else min(steps, trainer.max_steps))
