"""What every training objective shares: optimizer, schedule, and a loss that any number of processes divide alike."""

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
from torch.nn.parallel import DistributedDataParallel
from torch.optim.lr_scheduler import LambdaLR

from mm._compat.lightning import is_accumulating
from mm.data_source import data_source
from mm.model import MultimodalModel
from mm.tasks import guards
from mm.tasks.answers import Answers
from mm.tasks.distributed.sharding import FSDP2Strategy, checkpoint_activations, share_statistics
from mm.tasks.measures import mean_losses, positive
from mm.tasks.nonfinite import NonFinite, all_finite, listed
from mm.tasks.optim import parameters
from mm.tasks.optim.schedule import Schedule, TrainingProgress
from mm.tasks.optim.unfreezing import Unfreezing, can_cut
from mm.types import Batch

CHECKPOINT_FORMAT = 4  # of the checkpoints from which a run resumes


def grad_norm(parameters: Sequence[nn.Parameter]) -> Tensor:
    """Of all their gradients together, over all processes that share them out."""
    norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    return norm.full_tensor() if isinstance(norm, DTensor) else norm


class Task(LightningModule):
    """A model and how it is trained. A child gives `losses`.

    optimizer: partial that takes parameter groups, None for a task that only tests; freeze, lr_scale, no_decay,
    layer_decay: see mm.tasks.optim.parameters; activation_checkpointing: see mm.tasks.distributed.sharding;
    nonfinite: what is done about a loss or a gradient that is not finite, None: the run stops, and no batch is kept;
    gradual_unfreeze: epochs after which one block more of each encoder learns, see mm.tasks.optim.unfreezing, None: all
    do from the start.
    """

    unsharded = ""  # weights of its own that trainer=fsdp would not share out
    gathers = False  # whether rows are compared with those of other processes
    reads_heads = True  # whether it trains the model's heads, and every target has to have one

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
        self.course = TrainingProgress(1, 1, 1, 1)  # of the run at work
        parameters.freeze(model, freeze)
        for encoder in model.encoders.values():
            if not any(p.requires_grad for p in encoder.parameters()):  # type: ignore[attr-defined]
                encoder.eval()  # type: ignore[attr-defined]
        self.unfreezing = None if gradual_unfreeze is None else Unfreezing(model, gradual_unfreeze)
        checkpoint_activations(model, activation_checkpointing)
        self.results: dict[str, float] = {}  # of the last test: name -> number
        self.figures: dict[str, Any] = {}  # of the last test: name -> matplotlib Figure
        self.decoded = Answers(Path())  # of the last test: what its heads say of each row
        self._losses: dict[str, tuple[Tensor, Tensor, float]] = {}  # of the last batch: name -> total, count, weight
        self.unimodal_loss_weight: dict[
            str, float
        ] = {}  # input -> what goes on into its encoder of its own heads' gradient
        self._only: int | None = None  # which of these losses alone reaches the model
        self._seen: list[Tensor] = []  # labelled rows of all processes in each micro-batch since the last step
        # Of the micro-batch before, whether the gradient that was accumulated up to it is finite, by sides.
        self._doubt: tuple[tuple[Batch, int], list[Tensor]] | None = None
        self._bad: tuple[Batch, int] | None = None  # the first of these batches whose gradient is not finite

    def export_config(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """Plain data that the model directory keeps of the task. config: that it was built from"""
        return {}

    def setup(self, stage: str) -> None:
        """Before a checkpoint is loaded, which may replace the course; the optimizers come before it or after.

        Errors: ValueError where what is asked of the trainer does not go with the task.
        """
        guards.check_precision(self.trainer)
        if stage == "fit":
            guards.check_fit(self, self.trainer)
            epoch, run = self.epoch_steps(), self.total_steps()
            self.course = TrainingProgress(epoch, epoch, run, run)
            self.trainer.log_every_n_steps = min(self.trainer.log_every_n_steps, epoch)  # type: ignore[attr-defined]

    def configure_model(self) -> None:
        """Every process has built the same model; under trainer=fsdp each keeps its part."""
        if isinstance(self.trainer.strategy, FSDP2Strategy):
            self.trainer.strategy.shard(self.model)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """What is random in a step follows from seed, epoch, batch and process alone: a resumed run repeats it."""
        self._last = batch, batch_idx
        if self.unfreezing is not None and self.unfreezing.epoch != self.current_epoch:
            told = self.unfreezing.begin(self.current_epoch, can_cut(self.trainer.strategy.model))
            if told and self.trainer.is_global_zero:
                print(told)
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

    def probes(self) -> set[str]:
        """Names of the losses whose gradient reaches nothing but `separately_clipped`."""
        return set()

    @abstractmethod
    def val_names(self) -> dict[str, bool | None]:
        """What validation logs, known before it has run -> whether higher is better; one of them is monitored."""

    def directions(self) -> dict[str, bool | None]:
        """Return whether a higher value is better, for each name that validation and the test log.

        None where neither direction is better, such as for counts.
        """
        known = self.val_names()
        return known | {name.replace("val", "test", 1): higher for name, higher in known.items()}

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor | None:
        """The loss whose gradient, averaged over processes and accumulation, is that of the mean over labelled rows.

        With accumulation the counts of later micro-batches are not known yet. One loss, besides probes: each is divided
        by the first one's, and the gradient is put right before the optimizer's step, which is exact. Several: a single
        factor can't put them right; the step takes the mean of the micro-batches' means, each exact over processes.
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
            for name, buffer in self.model.named_buffers():  # batch norm has taken the batch in
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
        """A loss of 0, with a gradient of 0 for every weight that learns: processes wait for each other's."""
        learning = [p for p in self.parameters() if p.requires_grad]
        return torch.stack([(p.to_local() if isinstance(p, DTensor) else p).sum() * 0 for p in learning]).sum()

    def train_losses(self) -> dict[str, Tensor]:
        """Of the last batch, for loggers and bar: train/loss and, of several heads, each one's. Nothing if skipped."""
        return mean_losses("train", self._losses)

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """Log the losses of steps that the loggers take: more often nobody sees it, and it costs 0.3 ms."""
        trainer: Any = self.trainer
        if self.global_step % trainer.log_every_n_steps == 0 or trainer.should_stop:
            self.log_dict(self.train_losses(), batch_size=len(batch.row))

    def on_after_backward(self) -> None:
        """Errors: ValueError for what DDP says a step later, without a name."""
        self.record_grad_norm()
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

    def record_grad_norm(self) -> None:
        """Of what is accumulated, the first that is not finite; the last is met when it is clipped.

        By then processes have added their gradients up, and whose it was is lost.
        """
        scaled = getattr(self.trainer.precision_plugin, "scaler", None) is not None  # which skips such steps itself
        if scaled or self._bad or not is_accumulating(self.trainer):
            return
        given = [p for p in self.parameters() if p.grad is not None]
        self.settle_doubt()
        if not self._bad:
            self._doubt = self._last, [grad_norm(side).isfinite() for side in self.clipped_groups(given)]

    def settle_doubt(self) -> None:
        """Read whether the gradient of the micro-batch before was finite: by now a device has computed it."""
        if self._doubt is not None and not all(self._doubt[1]):
            self._bad = self._bad or self._doubt[0]
        self._doubt = None

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Put the accumulated gradient right, before it is clipped.

        Lightning has divided every micro-batch by the accumulation, also where an epoch's last window is shorter.
        """
        if self.unfreezing is not None:
            self.unfreezing.drop()
        if not self._seen:  # all were skipped: with gradients of 0 the weights would still decay
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
        """Clip by the norm of all gradients, which is logged; where it is not finite, no weight changes."""
        given = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        if not given:  # the step was skipped
            self._bad = self._doubt = None
            return
        sides = self.clipped_groups(given)
        norms = [grad_norm(side) for side in sides]
        if (
            not all(norm.isfinite() for norm in norms)
            and getattr(self.trainer.precision_plugin, "scaler", None) is None
        ):  # a scaler skips such steps itself
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
            self.log_dict({"train/grad_norm": norms[0]} | self.encoder_norms())
        if gradient_clip_algorithm == "value":
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)
        elif gradient_clip_val:
            for side, norm in zip(sides, norms):
                torch.nn.utils.clip_grads_with_norm_(side, gradient_clip_val, norm)

    def clipped_groups(self, given: Sequence[nn.Parameter]) -> list[list[nn.Parameter]]:
        """The model's and those that are clipped apart, as far as there are any."""
        apart = {id(p) for p in self.separately_clipped()}
        sides = [[p for p in given if (id(p) in apart) == there] for there in (False, True)]
        return [side for side in sides if side]

    def separately_clipped(self) -> Iterable[nn.Parameter]:
        """Parameters that have a norm of their own, so that they do not shorten the model's steps."""
        return ()

    def encoder_norms(self) -> dict[str, Tensor]:
        """Where there are several encoders, the norm of each one's gradient, its projection's included."""
        model = self.model
        parts = {name: [model.encoders[name], model.projections[name]] for name in model.encoders}
        given = {
            name: [p for part in pair for p in part.parameters() if p.grad is not None]  # type: ignore[attr-defined]
            for name, pair in parts.items()
        }
        return {f"train[{n}]/grad_norm": grad_norm(of) for n, of in given.items() if of} if len(parts) > 1 else {}

    def handle_nonfinite(self, quantity: str, batch: Batch, batch_idx: int, mine: bool) -> None:
        """Tell of this process's batch; mine: it may be at fault. Errors: ValueError or DistError to stop the run."""
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
            everyone: list[Any] = [None] * self.trainer.world_size
            torch.distributed.all_gather_object(everyone, f"{rows} (process {process})" if mine else "")
            rows = ", ".join(said for said in everyone if said)

        def again() -> Any:
            self.on_train_batch_start(batch, batch_idx)
            return self.replay(batch)

        if not mine:
            if isinstance(self.trainer.strategy, FSDP2Strategy):  # no process computes alone
                with torch.no_grad():
                    again()
            if self.nonfinite.policy == "raise":
                # Of this type, so that what is told is the other's message.
                raise torch.distributed.DistError(
                    f"{quantity} of step {self.global_step} is not finite in another process"
                )
            return
        told = self.nonfinite.handle(self.model, batch, self.global_step, quantity, rows, again, process)
        warnings.warn(told, stacklevel=2)

    def replay(self, batch: Batch) -> Any:
        """Compute once more what the losses follow from, in this process alone."""
        return self.losses(batch)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["format"] = CHECKPOINT_FORMAT
        checkpoint["skipped_steps"] = self.nonfinite.skipped
        checkpoint["course"] = asdict(self.course)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Errors: ValueError where its weights mean something else."""
        if (found := checkpoint.get("format")) != CHECKPOINT_FORMAT:
            raise ValueError(
                f"the run's checkpoint has format {found}, this mm reads {CHECKPOINT_FORMAT}; go on with the mm that "
                "wrote it, or start another run=NAME"
            )
        self.nonfinite.skipped = checkpoint["skipped_steps"]
        now, self.course = self.course, TrainingProgress(**checkpoint["course"])
        if (now.epoch, now.run) != (self.course.epoch, self.course.run):
            step = checkpoint["global_step"]
            left = self.steps_left(step, checkpoint[type(data_source(self.trainer)).__qualname__])
            self.course = self.course.resume(step, now.epoch, now.run, *left)

    def configure_optimizers(self) -> Any:
        """Groups by the rules, and the schedule over all steps of the run."""
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
        """Optimizer steps of the whole run; 1 where only time ends it.

        Not `trainer.estimated_stepping_batches`: read this early, it makes Lightning drop a resumed loader's state.
        """
        trainer = self.trainer
        if trainer.max_epochs in (None, -1):
            return max(1, trainer.max_steps)
        steps = self.epoch_steps() * trainer.max_epochs
        return max(1, steps if trainer.max_steps == -1 else min(steps, trainer.max_steps))

    def epoch_steps(self) -> int:
        """Optimizer steps of a whole epoch."""
        return max(1, self.steps_of(len(data_source(self.trainer).loader("train", train=True))))

    def steps_of(self, batches: int, gone: int = 0) -> int:
        """Optimizer steps of an epoch of so many batches, after those that are gone."""
        limit = self.trainer.limit_train_batches
        batches = min(batches, limit) if isinstance(limit, int) else int(batches * limit)
        return max(0, -(-(batches - gone) // self.trainer.accumulate_grad_batches))

    def steps_left(self, step: int, state: Mapping[str, Any]) -> tuple[int, bool]:
        """Optimizer steps after `step`, and whether epochs end the run. state: of the data at that step."""
        trainer: Any = self.trainer
        most = max(0, trainer.max_steps - step)
        if trainer.max_epochs in (None, -1):
            return most, False
        epoch, gone, batches = data_source(trainer).progress(state)
        left = self.steps_of(batches, gone) + max(0, trainer.max_epochs - epoch - 1) * self.epoch_steps()
        return (left, True) if trainer.max_steps == -1 or left <= most else (most, False)
