"""Checkpoints to go on from, whatever ends a run: written whole or not at all, the newest few kept."""

import os
import re
import shutil
import signal
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO

from mm.files import refusal, whole

# What ends a run from outside: Ctrl-C, a scheduler's or an operator's stop, a warning before the time is up.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)


class Stopped(SystemExit):
    """A signal has ended the run; the exit status is that of a process which the signal ended."""

    def __init__(self, signum: int):
        super().__init__(128 + signum)
        self.signal = signal.Signals(signum).name


class Resumable(Checkpoint):
    """Keeps the newest `keep` checkpoints in `dirpath`: of every epoch's end, every `minutes`, and of a signal.

    steps: optimizer steps after which one is saved as well, null for none. A signal is answered at the end of the step
    that it finds: save, then hand it on to whoever listened for it before; where nobody did, `Stopped` is raised. The
    same signal a second time ends the run at once. Nothing is saved within a window of accumulation, nor where
    validation comes next, since Lightning would resume without it (2.6): its end is waited for. A run that ends within
    an epoch is saved at its last step, as one that goes on from there is.
    """

    def __init__(self, dirpath: str, minutes: float = 10.0, steps: int | None = None, keep: int = 2):
        super().__init__()
        for name, value in (("minutes", minutes), ("steps", 1 if steps is None else steps), ("keep", keep)):
            if not value > 0:
                raise ValueError(f"callbacks.resumable.{name}: got {value}, wanted more than 0")
        self.folder = Path(dirpath)
        self.minutes = minutes
        self.steps = steps
        self.keep = keep
        self.heard: list[int] = []  # signals that this process has received and not answered yet
        self.signum = 0  # one that all have agreed to answer
        self.before: dict[int, Any] = {}  # who listened for each signal
        self.wanted = False  # a checkpoint, as soon as one can be saved
        self.step = 0
        self.next_word = 0  # the step at whose end the processes next agree
        self.since = (0, 0.0)  # step and time of their last agreement
        self.saved, self.saved_step = time.monotonic(), -1

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit":
            self.before = {signum: signal.getsignal(signum) for signum in SIGNALS}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # Now, and not in setup: Lightning has put its own handlers in between, which end a run with status 0.
        for signum, handler in self.before.items():
            if handler is not signal.SIG_IGN:
                signal.signal(signum, self.hear)
        self.step, self.next_word = trainer.global_step, 0
        self.since, self.saved = (self.step, time.monotonic()), time.monotonic()
        loop = trainer.fit_loop
        if loop.restarted_on_epoch_end:  # under max_steps Lightning (2.6) would count an epoch without a batch
            loop.epoch_progress.increment_completed()
            loop.reset_restart_stage()
            loop._restarting = loop.epoch_loop.restarting = False

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        for signum, handler in self.before.items():
            signal.signal(signum, handler)
        self.before = {}

    def hear(self, signum: int, frame: Any) -> None:
        """The handler: take note, or, the second time, give up at once."""
        if signum in self.heard:
            raise Stopped(signum)
        self.heard.append(signum)
        name = signal.Signals(signum).name
        print(f"{name}: the step is finished and saved first; once more to stop at once", file=sys.stderr)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self.answer()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.next_word = 0
        self.agree(trainer)
        self.answer()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step == self.step:
            return  # within a window of accumulation
        self.step = trainer.global_step
        self.agree(trainer)
        loop = trainer.fit_loop.epoch_loop
        fetcher = trainer.fit_loop._data_fetcher
        assert fetcher is not None
        if not trainer.is_last_batch and not loop._should_check_val_fx(fetcher):
            self.wanted = self.wanted or ends(trainer)
            self.save_wanted(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn == "fit" and not trainer.is_last_batch and not trainer.fit_loop._should_accumulate():
            self.wanted = self.wanted or ends(trainer)
            self.save_wanted(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_last_batch:  # by now Lightning counts the epoch as a whole one
            self.wanted = True
            self.save_wanted(trainer)

    def agree(self, trainer: Trainer) -> None:
        """What any process has heard, and what the clock of any says, all come to know: about once a second."""
        if self.step < self.next_word and trainer.world_size > 1:
            return
        now = time.monotonic()
        by_steps = self.steps is not None and self.step // self.steps != self.since[0] // self.steps
        due = by_steps or now - self.saved >= 60 * self.minutes
        pace = (self.step - self.since[0]) / max(now - self.since[1], 1e-6)  # steps a second
        every = max(1, min(int(pace), self.steps or int(pace)))
        self.since = (self.step, now)
        heard = self.heard[0] if self.heard else 0  # one that arrives from here on is for the next time
        if trainer.world_size > 1:
            word = torch.tensor([heard, int(due), every], device=trainer.strategy.root_device)
            heard, due, every = trainer.strategy.reduce(word, reduce_op="max").tolist()
        self.signum = self.signum or heard
        self.next_word = self.step + every
        self.wanted = self.wanted or bool(due or self.signum)

    def save_wanted(self, trainer: Trainer) -> None:
        """Save where that is wanted, and forget the oldest."""
        if not self.wanted:
            return
        self.wanted, self.saved, self.saved_step = False, time.monotonic(), self.step
        trainer.save_checkpoint(self.folder / f"last-{trainer.global_step:09d}.ckpt", weights_only=False)
        if trainer.is_global_zero:
            for path in newest_first(self.folder, "last-*.ckpt")[self.keep :]:
                remove(path)

    def answer(self) -> None:
        """What the signal is for, once a checkpoint is saved and the loggers have got the step's numbers."""
        if not self.signum or self.saved_step != self.step:
            return
        signum, self.signum = self.signum, 0
        if signum in self.heard:
            self.heard.remove(signum)
        handler = self.before.get(signum)
        if callable(handler) and handler is not signal.default_int_handler:
            handler(signum, None)
        else:
            raise Stopped(signum)


def ends(trainer: Trainer) -> bool:
    """Whether the step is the run's last, wherever in its epoch."""
    return trainer.should_stop or 0 <= trainer.max_steps <= trainer.global_step


class WholeFileIO(TorchCheckpointIO):
    """Checkpoint files are written beside their name, synced, and renamed: a crash leaves the old one or the new."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        write_whole(Path(path), lambda file: torch.save(checkpoint, file))


def write_whole(path: Path, write: Callable[[Any], None]) -> None:
    """Write a file whole. Raises OSError that names the file where the system refuses, as on a full disk."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole(path) as part, part.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        folder = os.open(path.parent, os.O_RDONLY)
        os.fsync(folder)  # the name as well
        os.close(folder)
    except (OSError, RuntimeError) as error:  # torch tells of a full disk by a RuntimeError
        if (refused := refusal(error, path)) is None:
            raise
        raise refused from None


def newest_first(folder: Path, pattern: str = "*.ckpt") -> list[Path]:
    """Checkpoints of a folder, by the step in their names."""

    def step(path: Path) -> tuple[int, bool, str]:
        number = re.search(r"(\d+)\.ckpt$", path.name)
        return (int(number[1]) if number else -1), path.name.startswith("last-"), path.name

    return sorted(folder.glob(pattern), key=step, reverse=True)


def usable(path: Path) -> bool:
    """Whether a checkpoint file is whole: every part of it has the checksum that it was written with."""
    try:
        with zipfile.ZipFile(path) as file:
            return file.testzip() is None
    except (zipfile.BadZipFile, OSError, EOFError):
        return False


def remove(path: Path) -> None:
    """A checkpoint, be it a file or, of a sharded model, a folder."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
