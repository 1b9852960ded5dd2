"""The bar on the screen."""

from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import TQDMProgressBar


class Progress(TQDMProgressBar):
    """Lightning's bar with the last batch's loss and samples/s, without the version number of the logger.

    Both are asked for when the bar is drawn: what is logged for a bar, Lightning reads from the device at every step.
    """

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        """What stands behind the bar."""
        shown = super().get_metrics(trainer, pl_module)
        shown.pop("v_num", None)
        losses = pl_module.train_losses()  # type: ignore[operator]
        if "train/loss" in losses:
            shown["loss"] = float(losses["train/loss"])
        speed = trainer.callback_metrics.get("train/samples_per_second")
        return shown if speed is None else shown | {"samples/s": f"{float(speed):.0f}"}  # type: ignore[return-value]
