"""Saving of the model after chosen steps, as model directories from which other runs can start."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from lightning import Callback, LightningModule, Trainer

from mm.messages import say


class SaveAtSteps(Callback):
    """Save the model directory `folder`/STEP after each of the given optimizer steps.

    Args:
        folder: Folder for the model directories.
        steps: Numbers of optimizer steps.

    Raises:
        ValueError: If `steps` is not a list of positive integers.
    """

    save: Callable[[Path, dict[str, Any]], Any]  # function of the path and of the run's results so far

    def __init__(self, folder: str, steps: Sequence[int]):
        listed = isinstance(steps, Sequence) and not isinstance(steps, str) and len(steps) > 0
        if not listed or not all(type(step) is int and step > 0 for step in steps):
            raise ValueError(
                f"callbacks.save_at_steps.steps: got {steps}, wanted numbers of steps, such as [1000,5000]"
            )
        self.folder = Path(folder)
        self.steps = sorted(set(steps))
        self.seen = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.seen = trainer.global_step
        over = [str(step) for step in self.steps if step <= self.seen and not (self.folder / str(step)).exists()]
        if over:
            say(
                f"callbacks.save_at_steps.steps: {', '.join(over)} went by unsaved; the run goes on after step "
                f"{self.seen}"
            )

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        step = trainer.global_step
        if step == self.seen:  # while gradients are accumulated
            return
        self.seen = step
        if step in self.steps and trainer.is_global_zero:
            self.save(self.folder / str(step), {"train/steps": step})

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        never = [str(step) for step in self.steps if step > trainer.global_step]
        if never:
            say(
                f"callbacks.save_at_steps.steps: {', '.join(never)} never came; training took "
                f"{trainer.global_step} steps"
            )
