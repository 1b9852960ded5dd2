"""Validation metrics of the best epoch, beside which baselines are read."""

from collections.abc import Mapping
from typing import Any

from lightning import Callback, LightningModule, Trainer


class BestMetrics(Callback):
    """Keep all validation metrics of the validation in which the monitored metric was best.

    Args:
        monitor: Name of the monitored metric, such as `val/loss`.
        mode: "min" or "max".

    Attributes:
        best: Metric name to value; empty before the first validation.
    """

    def __init__(self, monitor: str, mode: str):
        self.monitor = monitor
        self.mode = mode
        self.best: dict[str, float] = {}

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the metrics if they are the best, as `ModelCheckpoint` keeps the weights."""
        logged = trainer.callback_metrics
        if trainer.sanity_checking or self.monitor not in logged:
            return
        value, before = float(logged[self.monitor]), self.best.get(self.monitor)
        if value == value and (before is None or (value < before if self.mode == "min" else value > before)):
            self.best = {name: float(one) for name, one in logged.items() if name.startswith("val")}

    def state_dict(self) -> dict[str, Any]:
        return {"best": dict(self.best)}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        self.best = dict(state_dict["best"])
