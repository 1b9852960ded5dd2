"""Callbacks that tests plant into a run: `+callbacks.kill._target_=planted.Kill`."""

import json
import os
import signal
from pathlib import Path
from typing import Any

from lightning import Callback, LightningModule, Trainer


class Kill(Callback):
    """At the end of a step a signal to the own process, or an exception."""

    def __init__(self, step: int, how: str, rank: int = 0):
        self.step = step
        self.how = how
        self.rank = rank

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        if trainer.global_step == self.step and trainer.global_rank == self.rank:
            self.step = -1  # once, though with accumulation several batches end at a step
            if self.how == "raise":
                raise RuntimeError("planted")
            os.kill(os.getpid(), getattr(signal, self.how))


class KillInTest(Callback):
    """At the first batch of the test a signal to the own process."""

    def __init__(self, how: str, rank: int = 0):
        self.how = how
        self.rank = rank

    def on_test_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, *a: Any
    ) -> None:
        if batch_idx == 0 and trainer.global_rank == self.rank:
            os.kill(os.getpid(), getattr(signal, self.how))


class Blow(Callback):
    """An infinite value in the first row of an input, in every epoch's batch of that number."""

    def __init__(self, batch: int, name: str, rank: int = 0):
        self.batch = batch
        self.name = name
        self.rank = rank

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if batch_idx == self.batch and trainer.global_rank == self.rank:
            batch.inputs[self.name][0] = float("inf")


class Record(Callback):
    """The rows of every training batch, a line each, to a file per process."""

    def __init__(self, folder: str):
        self.folder = Path(folder)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, *a: Any
    ) -> None:
        self.folder.mkdir(exist_ok=True)
        with (self.folder / f"{trainer.global_rank}.jsonl").open("a") as file:
            file.write(json.dumps([trainer.current_epoch, batch.row.tolist()]) + "\n")


class Burst(Callback):
    """An infinite gradient of a head in one batch of the first epoch."""

    def __init__(self, batch: int, rank: int = 0):
        self.batch = batch
        self.rank = rank
        self.on = False

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        head: Any = next(iter(pl_module.model.heads.children()))  # type: ignore[union-attr]
        next(head.parameters()).register_hook(lambda gradient: gradient * float("inf") if self.on else gradient)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        here = trainer.current_epoch == 0 and trainer.global_rank == self.rank
        self.on = here and batch_idx == self.batch


class KillInValidation(Callback):
    """In one of the run's validations, at the start of a batch, a signal to the own process."""

    def __init__(self, number: int, batch: int, how: str, rank: int = 0):
        self.number = number  # counts from 1; 0: never
        self.batch = batch
        self.how = how
        self.rank = rank
        self.seen = 0

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.seen += 1

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, *a: Any
    ) -> None:
        if (self.seen, batch_idx, trainer.global_rank) == (self.number, self.batch, self.rank):
            os.kill(os.getpid(), getattr(signal, self.how))
