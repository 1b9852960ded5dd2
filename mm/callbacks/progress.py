"""The progress bar."""

from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import TQDMProgressBar


class Progress(TQDMProgressBar):
    """Lightning's progress bar with the last batch's loss and samples per second, without the logger's version number.

    Both values are read only when the bar is drawn, because Lightning reads values logged for the bar from the device
    at every step, which waits for the device.
    """

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        """Return the values that are shown behind the bar."""
        shown = super().get_metrics(trainer, pl_module)
        shown.pop("v_num", None)
        losses = pl_module.train_losses()  # type: ignore[operator]
        if "train/loss" in losses:
            shown["loss"] = float(losses["train/loss"])
        speed = trainer.callback_metrics.get("train/samples_per_second")
        return shown if speed is None else shown | {"samples/s": f"{float(speed):.0f}"}  # type: ignore[return-value]
