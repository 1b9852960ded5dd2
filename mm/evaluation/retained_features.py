"""Features of inputs that are not corrupted, which are computed once for all passes of a robustness evaluation."""

import shutil
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from lightning import Callback, LightningModule, Trainer

from mm.features.files import FeatureStore
from mm.features.store import compute


class RetainedFeatures(Callback):
    """Callback that computes the Features of some inputs before validation and stores them in a new folder of `cache`.

    Args:
        cache: Parent folder.
        inputs: Names of the inputs.
    """

    def __init__(self, cache: Path, inputs: list[str]):
        self.cache = cache
        self.inputs = inputs
        self.folder: Path | None = None
        self.stored: dict[str, Any] = {}  # input name to FeatureStore

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.cache.mkdir(parents=True, exist_ok=True)
        made = mkdtemp(prefix="robustness-", dir=self.cache) if trainer.is_global_zero else ""
        self.folder = Path(trainer.strategy.broadcast(made))
        model: Any = pl_module.model
        for name in self.inputs:
            encoder = model.encoders[model.shared_encoders.get(name, name)]
            compute(trainer, trainer.datamodule, name, encoder, self.folder / name)  # type: ignore[attr-defined]
            self.stored[name] = FeatureStore(self.folder / name)

    def remove(self, trainer: Trainer) -> None:
        """Remove the files."""
        if self.folder is not None and trainer.is_global_zero:
            shutil.rmtree(self.folder)
