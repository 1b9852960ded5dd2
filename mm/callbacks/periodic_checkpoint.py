"""Checkpoints for resuming a run after any interruption: written atomically, with the newest few kept."""

import os
import re
import shutil
import signal
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, WeightAveraging
from lightning.pytorch.loops.evaluation_loop import RestartStage
from lightning.pytorch.plugins.io import TorchCheckpointIO

from mm._compat.lightning import clear_restart, is_accumulating, is_validation_due, swap_averaged_weights
from mm.files import refusal, whole
from mm.messages import is_first_process
from mm.signals import REPEAT, SIGNALS, Stopped, Stopper, tell

DUE = "validation_due"  # key of a checkpoint: whether it was saved during the validation of its step


class PeriodicCheckpoint(Checkpoint):
    """Save checkpoints to resume from: at the end of every epoch, every few minutes, and after a signal.

    After SIGINT, SIGTERM or a similar signal, a checkpoint is saved at the end of the current step or validation batch.
    Then the handler that was set before is called; without one, `Stopped` is raised. The same signal a second time ends
    the run immediately.

    No checkpoint is saved while gradients are accumulated. A run that resumes from a checkpoint saved during validation
    repeats the complete validation, which Lightning 2.6 would skip. A run that ends within an epoch is saved at its
    last step, like any run that is to be resumed from there.

    Args:
        dirpath: Folder for the checkpoints.
        minutes: Number of minutes between two checkpoints.
        steps: Number of optimizer steps after which a checkpoint is saved in addition; None: no such checkpoints.
        keep: Number of newest checkpoints that are kept.

    Raises:
        ValueError: If a number is not above 0.
    """

    def __init__(self, dirpath: str, minutes: float = 10.0, steps: int | None = None, keep: int = 2):
        super().__init__()
        for name, value in (("minutes", minutes), ("steps", 1 if steps is None else steps), ("keep", keep)):
            if not value > 0:
                raise ValueError(f"callbacks.periodic_checkpoint.{name}: got {value}, wanted more than 0")
        self.folder = Path(dirpath)
        self.minutes = minutes
        self.steps = steps
        self.keep = keep
        self.heard: dict[int, float] = {}  # signals that are not handled yet to the time of their arrival
        self.signum = 0  # signal that all processes have agreed to handle
        self.before: dict[int, Any] = {}  # signal to its previous handler
        self.requested = False  # whether to save a checkpoint as soon as possible
        self.step = 0
        self.ticks = 0  # number of training steps and validation batches
        self.next_word = 0  # tick at which the processes next agree
        self.owner = os.getpid()
        self.during_validation = False  # whether the current checkpoint is saved during validation
        self.since = (0, 0, 0.0)  # step, tick and time of the last agreement
        self.due = False  # whether the checkpoint that the run resumes from was saved during validation
        self.more = 0  # steps by which the loop's limit is raised until that validation has run
        self.saved, self.saved_step = time.monotonic(), -1

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit":
            self.before = {signum: signal.getsignal(signum) for signum in SIGNALS}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # Here rather than in setup, because Lightning has since set its own handlers, which end a run with status 0.
        for signum, handler in self.before.items():
            if handler is not signal.SIG_IGN:
                signal.signal(signum, self.hear)
        self.step, self.next_word = trainer.global_step, 0
        self.saved = time.monotonic()
        self.since = (self.step, self.ticks, self.saved)
        loop = trainer.fit_loop
        if self.due:
            repeat_validation(trainer)
            self.due = False
        if loop.restarted_on_epoch_end:  # with max_steps, Lightning 2.6 would count an epoch without a batch
            loop.epoch_progress.increment_completed()
            loop.reset_restart_stage()
            clear_restart(trainer)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self.give_back()
        heard, self.heard = self.heard, {}
        for signum in heard:  # a signal after the end of the run goes to its previous handler
            signal.raise_signal(signum)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self.give_back()
        self.heard = {}

    def give_back(self) -> None:
        """Restore the previous handlers of all signals."""
        for signum, handler in self.before.items():
            signal.signal(signum, handler)
        self.before = {}

    def hear(self, signum: int, frame: Any) -> None:
        """Record a signal, or stop immediately if it arrives a second time. This is the signal handler during training.

        Args:
            signum: Number of the signal.
            frame: Not used.
        """
        if os.getpid() != self.owner:  # in a forked process
            return
        if signum in self.heard:
            if time.monotonic() - self.heard[signum] > REPEAT:
                raise Stopped(signum)
            return
        self.heard[signum] = time.monotonic()
        if is_first_process():
            name = signal.Signals(signum).name
            tell(f"{name}: a checkpoint is saved after this step, then the run stops; once more to stop at once")

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self.answer()

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        if trainer.state.fn != "fit" or trainer.sanity_checking:
            return
        self.agree(trainer, at_once=batch_idx == 0)  # a validation batch takes another time than a step
        if is_accumulating(trainer):
            return  # while gradients are accumulated
        if self.requested and self.saved_step != self.step:
            with training_weights(trainer):
                self.save_wanted(trainer, during_validation=True)
        self.answer()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.agree(trainer, at_once=True)
        self.answer()

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint[DUE] = self.during_validation

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        self.due = trainer.state.fn == "fit" and checkpoint.get(DUE, False)
        loop = trainer.fit_loop.epoch_loop
        if self.due and loop.max_steps == checkpoint["global_step"]:  # Lightning would not start the loop at all
            self.more = 1
            loop.max_steps += 1

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step == self.step:
            return  # while gradients are accumulated
        self.step = trainer.global_step
        self.agree(trainer)
        if not trainer.is_last_batch and not is_validation_due(trainer):
            self.requested = self.requested or ends(trainer)
            self.save_wanted(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn != "fit" or trainer.sanity_checking:
            return
        trainer.fit_loop.epoch_loop.max_steps -= self.more
        self.more = 0
        self.agree(trainer, at_once=True)
        if not trainer.is_last_batch and not is_accumulating(trainer):
            self.requested = self.requested or ends(trainer)
            self.save_wanted(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.agree(trainer, at_once=True)  # other callbacks may have spent a pass over the data
        if trainer.is_last_batch:  # Lightning has counted the epoch as complete by now
            self.requested = True
            self.save_wanted(trainer)

    def agree(self, trainer: Trainer, at_once: bool = False) -> None:
        """Exchange received signals and due checkpoints between all processes, about once a second.

        Every process calls this method after the same steps and validation batches.

        Args:
            trainer: The Trainer.
            at_once: Whether to exchange them now, rather than at the next planned tick.
        """
        self.ticks += 1
        if self.ticks < self.next_word and trainer.world_size > 1 and not at_once:
            return
        now = time.monotonic()
        by_steps = self.steps is not None and self.step // self.steps != self.since[0] // self.steps
        due = by_steps or now - self.saved >= 60 * self.minutes
        pace = (self.ticks - self.since[1]) / max(now - self.since[2], 1e-6)  # ticks per second
        every = 1 if at_once else max(1, min(int(pace), self.steps or int(pace)))
        self.since = (self.step, self.ticks, now)
        heard = next(iter(self.heard), 0)  # a signal that arrives from here on waits for the next agreement
        if trainer.world_size > 1:
            word = torch.tensor([heard, int(due), every], device=trainer.strategy.root_device)
            heard, due, every = trainer.strategy.reduce(word, reduce_op="max").tolist()
        self.signum = self.signum or heard
        self.next_word = self.ticks + every
        self.requested = self.requested or bool(due or self.signum)

    def save_wanted(self, trainer: Trainer, during_validation: bool = False) -> None:
        """Save a checkpoint if one was requested, and remove the oldest ones.

        Args:
            trainer: The Trainer.
            during_validation: Whether the validation of the current step is still running.
        """
        if not self.requested:
            return
        self.requested, self.saved, self.saved_step = False, time.monotonic(), self.step
        self.during_validation = during_validation
        trainer.save_checkpoint(self.folder / f"last-{trainer.global_step:09d}.ckpt", weights_only=False)
        self.during_validation = False
        if trainer.is_global_zero:
            for path in newest_first(self.folder, "last-*.ckpt")[self.keep :]:
                remove(path)

    def answer(self) -> None:
        """Handle the agreed signal, after a checkpoint was saved and the loggers have received the metrics of the step.

        Raises:
            Stopped: If no previous handler has to handle the signal instead.
        """
        if not self.signum or self.saved_step != self.step:
            return
        signum, self.signum = self.signum, 0
        self.heard.pop(signum, None)
        handler = self.before.get(signum)
        if isinstance(handler, Stopper):
            handler.begin(signum)
        elif callable(handler) and handler is not signal.default_int_handler:
            handler(signum, None)
            return
        raise Stopped(signum, together=True)


@contextmanager
def training_weights(trainer: Trainer) -> Iterator[None]:
    """Context manager that undoes weight averaging during validation, so that the model has the trained weights."""
    averages = [callback for callback in trainer.callbacks if isinstance(callback, WeightAveraging)]  # type: ignore[attr-defined]
    module = trainer.lightning_module
    for callback in averages:
        swap_averaged_weights(callback, module)
    try:
        yield
    finally:
        for callback in averages:
            swap_averaged_weights(callback, module)


def repeat_validation(trainer: Trainer) -> None:
    """Make a run that was stopped during validation start with this validation, from its first batch.

    Lightning calls this "mid evaluation", but would start at the saved batch index, with other rows.
    """
    loop = trainer.fit_loop.epoch_loop.val_loop
    progress = loop.batch_progress
    for name in ("ready", "started", "processed", "completed"):
        setattr(progress.total, name, getattr(progress.total, name) - getattr(progress.current, name))
    progress.reset_on_run()
    loop._restart_stage = RestartStage.RESTARTED_MID_EVALUATION


def ends(trainer: Trainer) -> bool:
    """Return whether the current step is the last of the run, even within an epoch."""
    return trainer.should_stop or 0 <= trainer.max_steps <= trainer.global_step


class WholeFileIO(TorchCheckpointIO):
    """Checkpoint IO that writes files atomically: to a temporary file, which is then synced and renamed."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        write_whole(Path(path), lambda file: torch.save(checkpoint, file))


def write_whole(path: Path, write: Callable[[Any], None]) -> None:
    """Write a file atomically.

    Args:
        path: Path of the file.
        write: Function that writes the content into an open binary file.

    Raises:
        OSError: If the operating system refuses to write, for example on a full disk; the error names the file.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole(path) as part, part.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        folder = os.open(path.parent, os.O_RDONLY)
        os.fsync(folder)  # make the renaming durable too
        os.close(folder)
    except (OSError, RuntimeError) as error:  # torch raises a RuntimeError on a full disk
        if (refused := refusal(error, path)) is None:
            raise
        raise refused from None


def newest_first(folder: Path, pattern: str = "*.ckpt") -> list[Path]:
    """Return the checkpoints of a folder, sorted by the step in their names, the newest first."""

    def step(path: Path) -> tuple[int, bool, str]:
        number = re.search(r"(\d+)\.ckpt$", path.name)
        return (int(number[1]) if number else -1), path.name.startswith("last-"), path.name

    return sorted(folder.glob(pattern), key=step, reverse=True)


def usable(path: Path) -> bool:
    """Return whether a checkpoint file is complete and all of its parts have the right checksum."""
    try:
        with zipfile.ZipFile(path) as file:
            return file.testzip() is None
    except (zipfile.BadZipFile, OSError, EOFError):
        return False


def remove(path: Path) -> None:
    """Remove a checkpoint, which is a file or, for a sharded model, a folder."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
