"""State of Lightning's loops and callbacks that has no public access (Lightning 2.6)."""

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging


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
