"""Training throughput: samples, tokens and seconds of sound per second."""

import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor

from mm.data_source import DataSource, data_source
from mm.modalities import get_modality
from mm.types import Batch, Features


class Amount(NamedTuple):
    """Amount of training data: numbers, or tensors on a device, which are not read before they are needed."""

    samples: Any = 0  # windows of rows, without rows that only fill up a batch
    tokens: Any = 0  # text tokens, without padding
    seconds: Any = 0.0  # seconds of sound, without padding


NOTHING = Amount()


class Counter:
    """Counts the samples, text tokens and seconds of sound of batches, without padding. Images have no tokens.

    Sound that is given as Features is not counted, because the length of its waveform is not known.
    """

    def __init__(self, modality: Mapping[str, str], transforms: Mapping[str, Any]):
        """Initialise the counter.

        Args:
            modality: Input name to its modality.
            transforms: Input name to its transform, which has the sample rate.
        """
        self.text: Sequence[str] = [name for name, kind in modality.items() if get_modality(kind).unit == "tokens"]
        self.rates = {
            name: transforms[name].sample_rate
            for name, kind in modality.items()
            if get_modality(kind).unit == "seconds"
        }

    @torch.no_grad()
    def count(self, batch: Batch, so_far: Amount = NOTHING) -> Amount:
        """Return the sum of an amount and that of a batch.

        Args:
            batch: The batch.
            so_far: The amount before this batch.
        """
        samples, tokens, seconds = so_far
        samples = samples + trues(batch.row >= 0)
        for name in self.text:
            tokens = tokens + trues(batch.masks[name])
        for name, rate in self.rates.items():
            if not isinstance(batch.inputs[name], Features):
                seconds = seconds + trues(batch.masks[name]) / rate
        return Amount(samples, tokens, seconds)


def trues(mask: Tensor) -> Any:
    """Return the number of True values of a mask.

    On a CPU, NumPy counts 3 to 8 times as fast as torch. On another device the result stays there, as a tensor.
    """
    if mask.device.type == "cpu":
        import numpy as np

        return int(np.count_nonzero(mask.numpy()))
    return mask.sum()


def counter(data: DataSource) -> Counter:
    """Return a counter for the batches of some data."""
    modality = {name: about.modality for name, about in data.spec.inputs.items()}
    return Counter(modality, data.transforms)


class Throughput(Callback):
    """Log train/samples_per_second, train/tokens_per_second (of text) and train/audio_seconds_per_second (of sound).

    Each value covers the time since the last logged value, without validation. It is the value of rank 0 times the
    number of processes.
    """

    def __init__(self) -> None:
        self.step = 0
        self.reset()

    def reset(self) -> None:
        """Restart the time and the counts from zero."""
        self.started = time.perf_counter()
        self.amount = NOTHING

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.counter = counter(data_source(trainer))

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.reset()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.reset()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        # The sums stay on the device until they are logged, because reading them waits for the device.
        self.amount = self.counter.count(batch, self.amount)
        stepped, self.step = trainer.global_step != self.step, trainer.global_step
        # Lightning passes logged values to the loggers at exactly these steps; at others only the bar would show them.
        if (stepped and self.step % trainer.log_every_n_steps == 0) or trainer.is_last_batch:  # type: ignore[attr-defined]
            samples, tokens, sound = (float(x) * trainer.world_size for x in self.amount)
            seconds = time.perf_counter() - self.started
            pl_module.log("train/samples_per_second", samples / seconds)
            if self.counter.text:
                pl_module.log("train/tokens_per_second", tokens / seconds)
            if self.counter.rates:
                pl_module.log("train/audio_seconds_per_second", sound / seconds)
            self.reset()
