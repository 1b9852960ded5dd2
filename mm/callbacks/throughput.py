"""How fast training goes: samples, tokens and seconds of sound per second."""

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
    """What was trained on. Numbers, or tensors on a device that need not be waited for."""

    samples: Any = 0  # rows but filler; of a row of several windows each
    tokens: Any = 0  # real text tokens
    seconds: Any = 0.0  # of real sound


NOTHING = Amount()


class Counter:
    """Counts batches. A token is a real one of a text; pictures have none, and sound counts in seconds.

    Sound that comes as Features, its waveform no longer known, is not counted.
    """

    def __init__(self, modality: Mapping[str, str], transforms: Mapping[str, Any]):
        """modality: input name -> its modality; transforms: input name -> its transform, which knows a sample rate."""
        self.text: Sequence[str] = [name for name, kind in modality.items() if get_modality(kind).unit == "tokens"]
        self.rates = {
            name: transforms[name].sample_rate
            for name, kind in modality.items()
            if get_modality(kind).unit == "seconds"
        }

    @torch.no_grad()
    def count(self, batch: Batch, so_far: Amount = NOTHING) -> Amount:
        """so_far and this batch."""
        samples, tokens, seconds = so_far
        samples = samples + trues(batch.row >= 0)
        for name in self.text:
            tokens = tokens + trues(batch.masks[name])
        for name, rate in self.rates.items():
            if not isinstance(batch.inputs[name], Features):
                seconds = seconds + trues(batch.masks[name]) / rate
        return Amount(samples, tokens, seconds)


def trues(mask: Tensor) -> Any:
    """How many. NumPy counts bytes 3 to 8 times as fast as torch on a CPU; on a device the number stays there."""
    if mask.device.type == "cpu":
        import numpy as np

        return int(np.count_nonzero(mask.numpy()))
    return mask.sum()


def counter(data: DataSource) -> Counter:
    """Return a counter for the batches of some data."""
    modality = {name: about.modality for name, about in data.spec.inputs.items()}
    return Counter(modality, data.transforms)


class Throughput(Callback):
    """Logs train/samples_per_second, train/tokens_per_second where there is text, and train/audio_seconds_per_second.

    Each is since the last log, over all processes (the first one's count times their number), validation left out.
    """

    def __init__(self) -> None:
        self.step = 0
        self.reset()

    def reset(self) -> None:
        """Start counting anew."""
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
        # Sums stay on the device until they are logged: reading them would make it wait.
        self.amount = self.counter.count(batch, self.amount)
        stepped, self.step = trainer.global_step != self.step, trainer.global_step
        # The loggers take what was logged at these very steps, counted over epochs; the bar shows the rest.
        if (stepped and self.step % trainer.log_every_n_steps == 0) or trainer.is_last_batch:  # type: ignore[attr-defined]
            samples, tokens, sound = (float(x) * trainer.world_size for x in self.amount)
            seconds = time.perf_counter() - self.started
            pl_module.log("train/samples_per_second", samples / seconds)
            if self.counter.text:
                pl_module.log("train/tokens_per_second", tokens / seconds)
            if self.counter.rates:
                pl_module.log("train/audio_seconds_per_second", sound / seconds)
            self.reset()
