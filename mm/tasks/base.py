"""The base class of all tasks: optimizer, schedule, and a loss that is independent of the number of processes."""

import warnings
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.optim.lr_scheduler import LambdaLR

from mm._compat.lightning import is_accumulating
from mm.data_source import data_source
from mm.messages import say
from mm.model import MultimodalModel
from mm.tasks import guards
from mm.tasks.answers import Answers
from mm.tasks.distributed.sharding import FSDP2Strategy, checkpoint_activations, share_statistics
from mm.tasks.gradients import check_gradients, clipped_groups, encoder_norms, grad_norm
from mm.tasks.measures import mean_losses, positive
from mm.tasks.nonfinite import NonFinite, all_finite, gather_text, listed
from mm.tasks.optim import parameters
from mm.tasks.optim.schedule import Schedule, TrainingProgress
from mm.tasks.optim.unfreezing import Unfreezing, can_cut
from mm.types import Batch


class Task(LightningModule):
    """Base class of a task: a model and its training. Subclasses implement `losses` and `val_names`.

    Args:
        model: The model.
        optimizer: Function that builds the optimizer from parameter groups; None for a task that is only tested.
        scheduler: Learning-rate schedule.
        freeze: Regular expressions of parameters to freeze; see mm.tasks.optim.parameters.
        lr_scale: Pairs of a regular expression and a factor on the learning rate of the parameters that match it.
        no_decay: Regular expressions of parameters without weight decay.
        layer_decay: Factor on the learning rate per encoder layer, counted from the last layer.
        activation_checkpointing: Regular expressions of modules whose activations are recomputed in the backward pass;
            see mm.tasks.distributed.sharding.
        nonfinite: Handling of a loss or gradient that is not finite; None: the run stops, and no batch is saved.
        gradual_unfreeze: Number of epochs after which one more block of each encoder is trained, see
            mm.tasks.optim.unfreezing; None: all blocks are trained from the start.
    """

    unsharded = ""  # name of weights of the task that trainer=fsdp would not shard
    gathers = False  # whether rows are compared with those of other processes
    reads_heads = True  # whether the task trains the model's heads, so that every target needs a head

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
        gradual_unfreeze: int | None = None,
    ):
        super().__init__()
        self.model = model
        self.optimizer = optimizer
        self.scheduler = scheduler
        self.lr_scale = dict(lr_scale)
        self.no_decay = list(no_decay)
        self.layer_decay = layer_decay
        self.nonfinite = nonfinite or NonFinite()
        self.seed = torch.initial_seed()
        self.course = TrainingProgress(1, 1, 1, 1)  # of the current run
        parameters.freeze(model, freeze)
        for encoder in model.encoders.values():
            if not any(p.requires_grad for p in encoder.parameters()):  # type: ignore[attr-defined]
                encoder.eval()  # type: ignore[attr-defined]
        self.unfreezing = None if gradual_unfreeze is None else Unfreezing(model, gradual_unfreeze)
        checkpoint_activations(model, activation_checkpointing)
        self.results: dict[str, float] = {}  # of the last test: metric name to value
        self.figures: dict[str, Any] = {}  # of the last test: name to matplotlib Figure
        self.decoded = Answers(Path())  # of the last test: the decoded predictions of each row
        self._losses: dict[str, tuple[Tensor, Tensor, float]] = {}  # last batch: name to total, count, weight
        # Input to the factor on the gradient from its unimodal heads to its encoder.
        self.unimodal_loss_weight: dict[str, float] = {}
        self._only: int | None = None  # index of the only loss that trains the model, if there is only one
        self._seen: list[Tensor] = []  # labelled rows of all processes per micro-batch since the last step
        # The previous micro-batch, and whether the gradients accumulated up to it are finite, per clipping group.
        self._doubt: tuple[tuple[Batch, int], list[Tensor]] | None = None
        self._bad: tuple[Batch, int] | None = None  # first of these batches with a gradient that is not finite

    def export_config(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """Return plain data of the task that is stored in the model directory.

        Args:
            config: The config from which the task was built.
        """
        return {}

    def setup(self, stage: str) -> None:
        """Check the Trainer's settings and initialise the training progress, before a checkpoint may replace it.

        Raises:
            ValueError: If a setting of the Trainer is not supported by the task.
        """
        guards.check_precision(self.trainer)
        if stage == "fit":
            guards.check_fit(self, self.trainer)
            epoch, run = self.epoch_steps(), self.total_steps()
            self.course = TrainingProgress(epoch, epoch, run, run)
            self.trainer.log_every_n_steps = min(self.trainer.log_every_n_steps, epoch)  # type: ignore[attr-defined]

    def configure_model(self) -> None:
        """Shard the model with trainer=fsdp. Before, every process has built the same complete model."""
        if isinstance(self.trainer.strategy, FSDP2Strategy):
            self.trainer.strategy.shard(self.model)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Seed the random numbers of a step by seed, epoch, batch and rank, so that a resumed run repeats them."""
        self._last = batch, batch_idx
        if self.unfreezing is not None and self.unfreezing.epoch != self.current_epoch:
            line = self.unfreezing.begin(self.current_epoch, can_cut(self.trainer.strategy.model))
            if line:
                say(line)
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
        """Return the losses of a batch: name to (sum of the loss of this process, number of its units, weight)."""

    def probes(self) -> set[str]:
        """Return the names of the losses whose gradient reaches only the parameters of `separately_clipped`."""
        return set()

    @abstractmethod
    def val_names(self) -> dict[str, bool | None]:
        """Return the names of all validation metrics, known before the first validation, and whether higher is better.

        One of them is monitored.
        """

    def directions(self) -> dict[str, bool | None]:
        """Return whether a higher value is better for each metric of validation and test; None if neither is better."""
        known = self.val_names()
        return known | {name.replace("val", "test", 1): higher for name, higher in known.items()}

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor | None:
        """Return a loss whose gradient is that of the mean over the labelled rows of all processes and micro-batches.

        With gradient accumulation, the row counts of later micro-batches are not known yet. If a single loss trains the
        model (besides probes), every micro-batch is divided by the count of the first one, and the gradient is
        corrected before the optimizer step; this is exact. With several losses a single factor can't correct them. The
        step then uses the mean of the means of the micro-batches, each of which is exact over processes.
        """
        skipping = self.nonfinite.policy == "skip"
        buffers = {n: b.clone() for n, b in self.model.named_buffers()} if skipping else {}
        losses = self.losses(batch)
        world = self.trainer.world_size
        totals = torch.stack([total for total, _, _ in losses.values()])
        wrong = (~totals.detach().isfinite()).any()
        counts = torch.stack([*(count for _, count, _ in losses.values()), wrong.to(totals.dtype)]).detach()
        if world > 1:
            counts = self.trainer.strategy.reduce(counts, reduce_op="sum")
        if counts[-1]:
            self.handle_nonfinite("the loss", batch, batch_idx, mine=bool(wrong))
            for name, buffer in self.model.named_buffers():  # undo the batch's update of batch norm
                buffer.copy_(buffers[name])
            self._losses = {}
            return self.empty_step() if world > 1 else None
        counts = counts[:-1]
        self._seen.append(counts)
        probes = self.probes()
        reaching = [i for i, name in enumerate(losses) if name not in probes]
        self._only = reaching[0] if len(reaching) == 1 else None
        share = positive(counts)
        if self._only is not None and len(self._seen) > 1:
            share[self._only] = positive(self._seen[0])[self._only]
        parts = torch.stack([weight * total for total, _, weight in losses.values()]) / share
        self._losses = {n: (total.detach(), count.detach(), weight) for n, (total, count, weight) in losses.items()}
        return parts.sum() * world

    def empty_step(self) -> Tensor:
        """Return a loss of 0 with zero gradients for all trainable weights, for which the other processes wait."""
        learning = [p for p in self.parameters() if p.requires_grad]
        return torch.stack([(p.to_local() if isinstance(p, DTensor) else p).sum() * 0 for p in learning]).sum()

    def train_losses(self) -> dict[str, Tensor]:
        """Return the losses of the last batch for loggers: train/loss and, with several heads, that of each head.

        The result is empty if the step was skipped.
        """
        return mean_losses("train", self._losses)

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """Log the losses, only at steps at which loggers record them, because logging takes 0.3 ms."""
        trainer: Any = self.trainer
        if self.global_step % trainer.log_every_n_steps == 0 or trainer.should_stop:
            self.log_dict(self.train_losses(), batch_size=len(batch.row))

    def on_after_backward(self) -> None:
        """Check that every trainable parameter has a gradient, and record whether the gradients are finite.

        Raises:
            ValueError: If a parameter has no gradient under DDP, which would raise an error without its name a step
                later.
        """
        self.record_grad_norm()
        if not self.global_step:
            check_gradients(self.model, self.trainer.strategy.model)

    def record_grad_norm(self) -> None:
        """Record the first micro-batch after which the accumulated gradient is not finite.

        After the last micro-batch, it is checked in gradient clipping instead. By then the processes have summed their
        gradients, so that the process of origin is unknown.
        """
        scaled = getattr(self.trainer.precision_plugin, "scaler", None) is not None  # a scaler skips such steps
        if scaled or self._bad or not is_accumulating(self.trainer):
            return
        given = [p for p in self.parameters() if p.grad is not None]
        self.settle_doubt()
        if not self._bad:
            sides = clipped_groups(given, self.separately_clipped())
            self._doubt = self._last, [grad_norm(side).isfinite() for side in sides]

    def settle_doubt(self) -> None:
        """Read whether the gradient after the previous micro-batch was finite; the device has computed this by now."""
        if self._doubt is not None and not all(self._doubt[1]):
            self._bad = self._bad or self._doubt[0]
        self._doubt = None

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Correct the scale of the accumulated gradient before it is clipped.

        Lightning divides every micro-batch by the number of accumulated batches, even if the last window of an epoch is
        shorter.
        """
        if self.unfreezing is not None:
            self.unfreezing.drop()
        if not self._seen:  # all were skipped; zero gradients would still decay the weights
            optimizer.zero_grad()
        elif self.trainer.accumulate_grad_batches > 1:
            seen = torch.stack(self._seen)  # (micro-batches, losses)
            means = seen.new_tensor(self.trainer.accumulate_grad_batches / len(seen))
            right = means
            if self._only is not None:
                first, total = positive(seen[0, self._only]), positive(seen[:, self._only].sum())
                right = first / total * self.trainer.accumulate_grad_batches
            apart = {id(p) for p in self.separately_clipped()}
            for group in optimizer.param_groups:
                for parameter in group["params"]:
                    if parameter.grad is not None:
                        parameter.grad.mul_(means if id(parameter) in apart else right)
        self._seen = []

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip the gradients by their global norm, and log it. If it is not finite, the step changes no weights."""
        given = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        if not given:  # the step was skipped
            self._bad = self._doubt = None
            return
        sides = clipped_groups(given, self.separately_clipped())
        norms = [grad_norm(side) for side in sides]
        scaled = getattr(self.trainer.precision_plugin, "scaler", None) is not None  # a scaler skips such steps itself
        if not scaled and not all(norm.isfinite() for norm in norms):
            self.settle_doubt()
            bad, self._bad = self._bad, None
            known = torch.tensor(bad is not None, device=self.device).float()
            if self.trainer.world_size > 1:
                known = self.trainer.strategy.reduce(known, reduce_op="sum")
            self.handle_nonfinite("the gradient", *(bad or self._last), mine=bad is not None or not known)
            optimizer.zero_grad()
            return
        self._bad = self._doubt = None
        every: int = self.trainer.log_every_n_steps  # type: ignore[attr-defined]
        if (self.global_step + 1) % every == 0:  # logging costs a tenth of a millisecond
            self.log_dict({"train/grad_norm": norms[0]} | encoder_norms(self.model))
        if gradient_clip_algorithm == "value":
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)
        elif gradient_clip_val:
            for side, norm in zip(sides, norms):
                torch.nn.utils.clip_grads_with_norm_(side, gradient_clip_val, norm)

    def separately_clipped(self) -> Iterable[nn.Parameter]:
        """Return the parameters that are clipped by their own norm, so that they do not shorten the model's steps."""
        return ()

    def handle_nonfinite(self, quantity: str, batch: Batch, batch_idx: int, mine: bool) -> None:
        """Handle a loss or gradient that is not finite, according to `nonfinite`, and report the batch.

        Args:
            quantity: "the loss" or "the gradient".
            batch: Batch of this process.
            batch_idx: Index of the batch.
            mine: Whether the batch of this process may be the cause.

        Raises:
            ValueError: If the run has to stop.
            DistError: If the run has to stop because of another process.
        """
        if quantity == "the loss" and self.gathers and self.trainer.world_size > 1:
            # Rows reach the losses of all processes: at fault are those whose own are not finite, else the first.
            self.on_train_batch_start(batch, batch_idx)
            with torch.no_grad():
                bad = not all_finite(self.replay(batch))
            found = torch.tensor(float(bad), device=self.device)
            anyone = self.trainer.strategy.reduce(found, reduce_op="sum")  # in place
            mine = bad if anyone else self.trainer.is_global_zero
        self.nonfinite.skipped += 1
        ids = data_source(self.trainer).ids
        rows = listed([ids[int(row)] for row in batch.row if row >= 0])
        process = self.trainer.global_rank if self.trainer.world_size > 1 else None
        if process is not None:
            rows = gather_text(f"{rows} (process {process})" if mine else "", self.trainer.world_size)

        def again() -> Any:
            self.on_train_batch_start(batch, batch_idx)
            return self.replay(batch)

        if not mine:
            if isinstance(self.trainer.strategy, FSDP2Strategy):  # no process computes alone
                with torch.no_grad():
                    again()
            if self.nonfinite.policy == "raise":
                # With this type of error, the message of the other process is reported.
                raise torch.distributed.DistError(
                    f"{quantity} of step {self.global_step} is not finite in another process"
                )
            return
        told = self.nonfinite.handle(self.model, batch, self.global_step, quantity, rows, again, process)
        warnings.warn(told, stacklevel=2)

    def replay(self, batch: Batch) -> Any:
        """Repeat the computation of the losses in this process alone."""
        return self.losses(batch)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["format"] = guards.CHECKPOINT_FORMAT
        checkpoint["skipped_steps"] = self.nonfinite.skipped
        checkpoint["course"] = asdict(self.course)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the training progress and the number of skipped steps.

        Raises:
            ValueError: If the checkpoint has another format version.
        """
        guards.check_checkpoint_format(checkpoint)
        self.nonfinite.skipped = checkpoint["skipped_steps"]
        now, self.course = self.course, TrainingProgress(**checkpoint["course"])
        if (now.epoch, now.run) != (self.course.epoch, self.course.run):
            step = checkpoint["global_step"]
            left = self.steps_left(step, checkpoint[type(data_source(self.trainer)).__qualname__])
            self.course = self.course.resume(step, now.epoch, now.run, *left)

    def configure_optimizers(self) -> Any:
        """Build the optimizer with its parameter groups, and the schedule over all steps of the run."""
        schedule = self.scheduler
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
            [(name, p) for name, p in self.named_parameters() if not name.startswith("model.")],
        )
        optimizer = self.optimizer(groups)
        scheduler = LambdaLR(optimizer, lambda step: schedule(self.course(step), self.course.total))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def total_steps(self) -> int:
        """Return the number of optimizer steps of the complete run; 1 if only a time limit ends it.

        `trainer.estimated_stepping_batches` can't be used here: if it is read this early, Lightning discards the state
        of a resumed loader.
        """
        trainer = self.trainer
        if trainer.max_epochs in (None, -1):
            return max(1, trainer.max_steps)
        steps = self.epoch_steps() * trainer.max_epochs
        return max(1, steps if trainer.max_steps == -1 else min(steps, trainer.max_steps))

    def epoch_steps(self) -> int:
        """Return the number of optimizer steps of a complete epoch."""
        return max(1, self.steps_of(len(data_source(self.trainer).loader("train", train=True))))

    def steps_of(self, batches: int, gone: int = 0) -> int:
        """Return the number of optimizer steps of an epoch.

        Args:
            batches: Number of batches of the epoch.
            gone: Number of batches that were trained on already and do not count.
        """
        limit = self.trainer.limit_train_batches
        batches = min(batches, limit) if isinstance(limit, int) else int(batches * limit)
        return max(0, -(-(batches - gone) // self.trainer.accumulate_grad_batches))

    def steps_left(self, step: int, state: Mapping[str, Any]) -> tuple[int, bool]:
        """Return the number of optimizer steps after `step`, and whether the number of epochs ends the run.

        Args:
            step: Number of steps done.
            state: State of the data module at that step.
        """
        trainer: Any = self.trainer
        most = max(0, trainer.max_steps - step)
        if trainer.max_epochs in (None, -1):
            return most, False
        epoch, gone, batches = data_source(trainer).progress(state)
        left = self.steps_of(batches, gone) + max(0, trainer.max_epochs - epoch - 1) * self.epoch_steps()
        return (left, True) if trainer.max_steps == -1 or left <= most else (most, False)
