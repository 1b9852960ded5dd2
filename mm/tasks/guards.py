"""Checks of a Trainer's settings against a task, for Python and the command line alike."""

import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from lightning import Trainer
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint, WeightAveraging

from mm.messages import near
from mm.tasks.distributed.sharding import FSDP2Strategy
from mm.tasks.optim.schedule import Schedule

if TYPE_CHECKING:
    from mm.tasks.base import Task

TRUE = ("bf16-true", "16-true")
CHECKPOINT_FORMAT = 4  # format version of the checkpoints from which a run resumes
FUSED = (
    "task.optimizer.fused: under trainer.precision=16-mixed a fused optimizer undoes the scaling of gradients only "
    "after they were clipped; set task.optimizer.fused=false, or trainer.precision=bf16-mixed"
)


def check_precision(trainer: Trainer) -> None:
    """Check that the precision does not round numbers that are counted.

    Args:
        trainer: The Trainer that is about to run the task.

    Raises:
        ValueError: If the precision is bf16-true or 16-true.
    """
    precision = str(trainer.precision)
    if precision in TRUE:
        raise ValueError(
            f"trainer.precision: got '{precision}', in which counts, targets and metrics lose digits; "
            f"wanted {precision.replace('true', 'mixed')}"
        )


def check_fit(task: "Task", trainer: Trainer) -> None:
    """Check for settings with which a training run would fail later, or would train something else than expected.

    Args:
        task: The task to train.
        trainer: The Trainer that is about to train it.

    Raises:
        ValueError: If there is such a setting; the message names the key and the remedy.
    """
    for key in ("optimizer", "scheduler"):
        if getattr(task, key) is None:
            raise ValueError(f"task.{key}: got None, which only a task that tests can do without")
    check_scaling(task, trainer)
    assert task.scheduler is not None
    check_length(task.scheduler, trainer.max_epochs, trainer.max_steps)
    check_monitors(task.val_names(), trainer)
    if isinstance(trainer.strategy, FSDP2Strategy):
        check_sharding(task, trainer)


def check_scaling(task: "Task", trainer: Trainer) -> None:
    """Check that fp16 is not combined with a fused optimizer.

    A fused optimizer unscales the gradients itself, after they were clipped, so that the weights would move by 1/65,536
    of the right step. Lightning's own check is not reached, because the task clips gradients itself.

    Raises:
        ValueError: If the Trainer scales gradients and the optimizer is fused.
    """
    if getattr(trainer.precision_plugin, "scaler", None) is None:
        return
    assert task.optimizer is not None
    if task.optimizer([torch.nn.Parameter(torch.zeros(1, 1))]).defaults.get("fused"):
        raise ValueError(FUSED)


def check_length(scheduler: Schedule, max_epochs: int | None, max_steps: int) -> None:
    """Check that the length of a run is known if its schedule needs it.

    Raises:
        ValueError: If only a time limit or a signal ends the run, and the schedule is not constant.
    """
    if max_epochs in (None, -1) and max_steps == -1 and scheduler.shape != "constant":
        raise ValueError(
            f"task.scheduler.shape={scheduler.shape} needs to know how long the run is; set trainer.max_epochs or "
            "trainer.max_steps, or choose task/scheduler=constant"
        )


def check_monitors(known: dict[str, bool | None], trainer: Trainer) -> None:
    """Check that callbacks monitor metrics that validation logs, and warn if their mode has the wrong direction.

    Args:
        known: Validation metric to whether higher is better; None if it has no direction.
        trainer: The Trainer with the callbacks.

    Raises:
        ValueError: If a callback monitors an unknown name that begins with "val".
    """
    for callback in trainer.callbacks if trainer.enable_validation else ():  # type: ignore[attr-defined]
        if not isinstance(callback, ModelCheckpoint | EarlyStopping) or callback.monitor is None:
            continue
        metric, name = callback.monitor, type(callback).__name__
        if metric.startswith("val") and metric not in known:
            raise ValueError(f"{name}(monitor='{metric}'): validation logs {', '.join(known)}{near(metric, known)}")
        better = known.get(metric)
        if better is not None and callback.mode != ("max" if better else "min"):
            wanted = "higher" if better else "lower"
            warnings.warn(f"{name}(monitor='{metric}', mode='{callback.mode}'): {wanted} is better", stacklevel=2)


def check_sharding(task: "Task", trainer: Trainer) -> None:
    """Check that FSDP can shard the task.

    Raises:
        ValueError: If a callback keeps a second model, or if the task has weights of its own outside of the model.
    """
    if any(isinstance(callback, WeightAveraging) for callback in trainer.callbacks):  # type: ignore[attr-defined]
        raise ValueError("callbacks: ema keeps a second model, whole, which trainer=fsdp can't share out; leave it out")
    if task.unsharded:
        name = type(task).__name__.lower()
        raise ValueError(f"task={name}: trainer=fsdp would not share out {task.unsharded}; use trainer=ddp")


def check_checkpoint_format(checkpoint: Mapping[str, Any]) -> None:
    """Check that a run can resume from a checkpoint of this format version.

    Args:
        checkpoint: The checkpoint.

    Raises:
        ValueError: If it has another format version.
    """
    if (found := checkpoint.get("format")) != CHECKPOINT_FORMAT:
        raise ValueError(
            f"the run's checkpoint has format {found}, this mm reads {CHECKPOINT_FORMAT}; go on with the mm that wrote "
            "it, or start another run=NAME"
        )
