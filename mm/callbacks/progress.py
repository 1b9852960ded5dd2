"""The progress bar, or one line per epoch if the output is not a terminal."""

import logging
import sys
import time
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import TQDMProgressBar

MAX_VALUES = 5  # values in the line of an epoch
LINE_SECONDS = 60.0  # time between two lines within an epoch
log = logging.getLogger("mm")


def is_interactive() -> bool:
    """Return whether the output can draw a bar: it is a terminal or a notebook."""
    return sys.stdout.isatty() or "ipykernel" in sys.modules


class Progress(TQDMProgressBar):
    """Lightning's progress bar with the last batch's loss and samples per second, without the logger's version number.

    Both values are read only when the bar is drawn, because Lightning reads values logged for the bar from the device
    at every step, which waits for the device. Output that goes to a file or a pipe, such as the log of a Slurm job,
    gets one line per epoch in place of a bar, and within a long epoch one per minute.

    Args:
        refresh_rate: Number of batches after which the bar is drawn again.
        interactive: Whether a bar is drawn; default: only on a terminal and in a notebook.
    """

    def __init__(self, refresh_rate: int = 20, interactive: bool | None = None):
        super().__init__(refresh_rate)
        self.interactive = is_interactive() if interactive is None else interactive
        self.begun = self.logged = 0.0  # seconds of the monotonic clock: start of the epoch, and the last line
        if not self.interactive:
            self.disable()

    def enable(self) -> None:
        """Draw the bar from now on, unless the output can't draw it."""
        if self.interactive:
            super().enable()

    def on_train_epoch_start(self, trainer: Trainer, *_: Any) -> None:
        """Record the start time of the epoch."""
        self.begun = self.logged = time.monotonic()
        super().on_train_epoch_start(trainer, *_)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Log one line per minute in place of a bar."""
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        now = time.monotonic()
        if not self.interactive and trainer.is_global_zero and now - self.logged >= LINE_SECONDS:
            self.logged = now
            shown = ", ".join(f"{name} {value}" for name, value in self.get_metrics(trainer, pl_module).items())
            log.info(
                "epoch %d, batch %d/%s: %s", trainer.current_epoch + 1, batch_idx + 1, self.total_train_batches, shown
            )

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log one line in place of a bar."""
        super().on_train_epoch_end(trainer, pl_module)
        if not self.interactive and trainer.is_global_zero:
            log.info("%s", self.describe_epoch(trainer))

    def describe_epoch(self, trainer: Trainer) -> str:
        """Return the line of an epoch: its number, its losses, the monitored and other metrics, and its duration."""
        values = {name: float(value) for name, value in trainer.callback_metrics.items()}
        monitor = getattr(trainer.checkpoint_callback, "monitor", None)
        names = ["train/loss", "val/loss", monitor, *(name for name in values if name.startswith("val/"))]
        shown = [name for name in dict.fromkeys(names) if name in values][:MAX_VALUES]
        measured = "".join(f", {name} {values[name]:.4g}" for name in shown)
        total = f"/{trainer.max_epochs}" if (trainer.max_epochs or 0) > 0 else ""
        return f"epoch {trainer.current_epoch + 1}{total}{measured}, {time.monotonic() - self.begun:.1f} s"

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        """Return the values that are shown behind the bar."""
        shown = super().get_metrics(trainer, pl_module)
        shown.pop("v_num", None)
        losses = pl_module.train_losses()  # type: ignore[operator]
        if "train/loss" in losses:
            shown["loss"] = float(losses["train/loss"])
        speed = trainer.callback_metrics.get("train/samples_per_second")
        return shown if speed is None else shown | {"samples/s": f"{float(speed):.0f}"}
