"""Construction of the loggers of a run, and the log of its config and results."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from lightning import Trainer
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.loggers.logger import DummyLogger
from omegaconf import DictConfig, OmegaConf

from mm.assembly.provenance import Provenance
from mm.assembly.wandb_run import WANDB_ID, complete_wandb, finish_wandb, start_wandb
from mm.callbacks.prediction_table import PredictionTable
from mm.messages import is_first_process
from mm.tasks.base import Task


def build_loggers(cfg: DictConfig, folder: Path, provenance: Provenance) -> list[Any]:
    """Build the loggers of a config. They write nothing before `start_loggers`.

    Args:
        cfg: The config.
        folder: The run folder.
        provenance: The command and the options that it chooses.

    Returns:
        The loggers; a `DummyLogger` if the config has none.

    Raises:
        ValueError: If a logger needs a package that is not installed.
    """
    built = []
    for name, node in (cfg.get("logger") or {}).items():
        if name == "wandb":
            complete_wandb(cfg, node, folder, provenance)
        try:
            built.append(instantiate(node, _convert_="all"))
        except InstantiationException as error:
            if not isinstance(error.__cause__, ModuleNotFoundError):
                raise
            raise ValueError(
                f"logger={name} needs a package that is not installed; pip install 'mm[{name}]', or choose logger=csv"
            ) from None
    return built or [DummyLogger()]  # LearningRateMonitor wants one


def start_loggers(cfg: DictConfig, trainer: Trainer, folder: Path, directions: Mapping[str, bool | None]) -> None:
    """Log the complete config to every logger, and open the run of W&B.

    Args:
        cfg: The config.
        trainer: The Trainer.
        folder: The run folder.
        directions: Name of each validation metric to whether higher is better; None if neither is better.
    """
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger) and is_first_process():
            start_wandb(logger, directions)
            (folder / WANDB_ID).write_text(logger.experiment.id, encoding="utf-8")
        logger.log_hyperparams(OmegaConf.to_container(cfg, resolve=True))  # type: ignore[arg-type]


def finish_loggers(trainer: Trainer, task: Task, results: dict[str, Any], saved: dict[str, Path]) -> None:
    """Log the results of a run in rank 0, after the best weights were loaded and saved, and close the loggers.

    Args:
        trainer: The Trainer.
        task: The task.
        results: Metric name to value.
        saved: Kind of each file to its path.
    """
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, PredictionTable):
            callback.log_table(trainer, task)
    for logger in trainer.loggers:
        logger.finalize("success")
        if isinstance(logger, WandbLogger):
            finish_wandb(logger.experiment, trainer, task.figures, results, saved, task.val_names())
