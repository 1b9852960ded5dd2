"""The bar on the screen."""

from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import TQDMProgressBar

NAMES = {"train/samples_per_second": "samples/s", "train/loss": "loss"}


class Progress(TQDMProgressBar):
    """Lightning's bar with samples/s, without the version number of the logger."""

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        """What stands behind the bar."""
        shown = super().get_metrics(trainer, pl_module)
        shown.pop("v_num", None)
        speed = shown.pop("train/samples_per_second", None)
        named = {NAMES.get(name, name): value for name, value in shown.items()}
        return named if speed is None else named | {"samples/s": f"{float(speed):.0f}"}  # type: ignore[arg-type]
