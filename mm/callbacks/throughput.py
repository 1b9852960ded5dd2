"""How fast training goes: samples and tokens per second."""

import time
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor

from mm.types import Batch


class Throughput(Callback):
    """Logs train/samples_per_second and train/tokens_per_second, over all processes, since the last log.

    A token is one real step of an input's own mask: a text token, a waveform sample, an image. Validation is left out.
    """

    def __init__(self) -> None:
        self.step = 0
        self.reset()

    def reset(self) -> None:
        """Start counting anew."""
        self.started = time.perf_counter()
        self.samples: Tensor | int = 0
        self.tokens: Tensor | int = 0

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.reset()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.reset()

    @torch.no_grad()
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        # Sums stay on the device until they are logged: reading them would make it wait.
        self.samples = self.samples + (batch.row >= 0).sum()
        self.tokens = self.tokens + torch.stack([mask.sum() for mask in batch.masks.values()]).sum()
        stepped, self.step = trainer.global_step != self.step, trainer.global_step
        # The loggers take what was logged at these very steps, counted over epochs; the bar shows the rest.
        if (stepped and self.step % trainer.log_every_n_steps == 0) or trainer.is_last_batch:  # type: ignore[attr-defined]
            samples, tokens = float(self.samples) * trainer.world_size, float(self.tokens) * trainer.world_size
            seconds = time.perf_counter() - self.started
            pl_module.log("train/samples_per_second", samples / seconds, prog_bar=True)
            pl_module.log("train/tokens_per_second", tokens / seconds)
            self.reset()
