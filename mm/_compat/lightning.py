"""State of Lightning's loops and callbacks that has no public access (Lightning 2.6)."""

from collections import defaultdict
from collections.abc import Sequence

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import LearningRateMonitor, WeightAveraging
from lightning.pytorch.utilities.types import LRSchedulerConfig
from torch.optim import Optimizer


class NamedRateMonitor(LearningRateMonitor):
    """A `LearningRateMonitor` whose subclass names the learning rates; names that occur twice are logged once."""

    def name_rates(self, optimizer: Optimizer) -> Sequence[str]:
        """Return the name of the learning rate of each parameter group of an optimizer."""
        raise NotImplementedError

    def _check_duplicates_and_update_name(
        self,
        optimizer: Optimizer,
        name: str,
        seen_optimizers: list[Optimizer],
        seen_optimizer_types: defaultdict[type[Optimizer], int],
        lr_scheduler_config: LRSchedulerConfig | None,
    ) -> list[str]:
        seen_optimizers.append(optimizer)  # as Lightning's own method does, which builds a name per group
        return list(self.name_rates(optimizer))


def is_accumulating(trainer: Trainer) -> bool:
    """Return whether the current batch is within a window of gradient accumulation, without a step at its end."""
    return trainer.fit_loop._should_accumulate()


def is_validation_due(trainer: Trainer) -> bool:
    """Return whether validation follows the current batch."""
    fetcher = trainer.fit_loop._data_fetcher
    assert fetcher is not None
    return trainer.fit_loop.epoch_loop._should_check_val_fx(fetcher)


def clear_restart(trainer: Trainer) -> None:
    """Let the loops no longer count as restarted from a checkpoint."""
    trainer.fit_loop._restarting = trainer.fit_loop.epoch_loop.restarting = False


def swap_averaged_weights(callback: WeightAveraging, module: LightningModule) -> None:
    """Exchange the weights that are trained and their average."""
    callback._swap_models(module)
