"""Build the loggers of a run, with the defaults of W&B, and log the results at its end."""

import os
import secrets
from pathlib import Path
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from lightning import Trainer
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.loggers.logger import DummyLogger
from omegaconf import DictConfig, OmegaConf, open_dict

from mm.assembly.provenance import Provenance
from mm.callbacks.prediction_table import PredictionTable
from mm.extras import require
from mm.messages import command, is_first_process

WANDB_ID = "wandb_id"  # the file of the run folder that keeps it


def build_loggers(cfg: DictConfig, folder: Path, provenance: Provenance) -> list[Any]:
    """Build the loggers of a config. They write nothing yet.

    Args:
        cfg: The config.
        folder: The run folder.
        provenance: How the run was started.

    Raises:
        ValueError: If one needs a package that is not installed.
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


def complete_wandb(cfg: DictConfig, node: DictConfig, folder: Path, provenance: Provenance) -> None:
    """Fill in the run's name, a sweep as group, data and experiment as tags, and the command as notes.

    A variable that W&B itself reads from the environment wins over these.

    Args:
        cfg: The config.
        node: The config of the logger, which is changed.
        folder: The run folder.
        provenance: How the run was started.
    """
    wandb = require("wandb", "wandb")
    if wandb.run is not None:  # of a job of this sweep that failed: the logger would go on with it
        wandb.finish(exit_code=1)
    sweep, choices = provenance.job is not None, provenance.choices
    defaults = {
        "name": ("WANDB_NAME", f"{cfg.run}/{provenance.job}" if sweep else cfg.run),
        "group": ("WANDB_RUN_GROUP", cfg.run if sweep else None),
        "tags": ("WANDB_TAGS", [choices[key] for key in ("datamodule", "experiment") if choices.get(key)]),
        "notes": ("WANDB_NOTES", command(*provenance.words)),
    }
    with open_dict(cfg):
        for key, (variable, value) in defaults.items():
            if node[key] is None and variable not in os.environ:
                node[key] = value
        node.id = node.get("id") or wandb_id(folder, None if sweep else os.environ.get("WANDB_RUN_ID"))
        node.resume = "allow"


def wandb_id(folder: Path, given: str | None) -> str:
    """Given by an agent or by the user, or that under which this run folder was logged before, or a new one."""
    file = folder / WANDB_ID
    return given or (file.read_text(encoding="utf-8") if file.exists() else secrets.token_hex(4))


def start_loggers(cfg: DictConfig, trainer: Trainer, folder: Path) -> None:
    """Log the whole config to every logger."""
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger) and is_first_process():
            start_wandb(logger)
            (folder / WANDB_ID).write_text(logger.experiment.id, encoding="utf-8")
        logger.log_hyperparams(OmegaConf.to_container(cfg, resolve=True))  # type: ignore[arg-type]


def start_wandb(logger: WandbLogger) -> None:
    """Open the run of W&B. Raises ValueError where W&B refuses."""
    error_kind = require("wandb.errors", "wandb").Error
    try:
        _ = logger.experiment
    except error_kind as error:
        raise ValueError(f"logger=wandb: {error} Without an account: WANDB_MODE=offline mm train ...") from None


def finish_loggers(trainer: Trainer, task: Any, results: dict[str, Any], saved: dict[str, Path]) -> None:
    """Log the results of a run in the first process, once the best weights are loaded and saved.

    Args:
        trainer: The trainer.
        task: The task.
        results: Name to number.
        saved: Kind of each file to its path.
    """
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, PredictionTable):
            callback.log_table(trainer, task)
    for logger in trainer.loggers:
        logger.finalize("success")
        if isinstance(logger, WandbLogger):
            finish_wandb(logger.experiment, trainer, task, results, saved)


def finish_wandb(run: Any, trainer: Trainer, task: Any, results: dict[str, Any], saved: dict[str, Path]) -> None:
    """Pictures, the model directory as an artifact named after the run, the final results; the run ends."""
    wandb = require("wandb", "wandb")
    make_artifact_name_safe = require("wandb.util", "wandb").make_artifact_name_safe

    files = {name: saved.get(name.replace("/", "_")) for name in task.figures}
    pictures = {name: wandb.Image(str(file)) for name, file in files.items() if file is not None}
    if pictures:
        run.log(pictures | {"trainer/global_step": trainer.global_step})
    artifact = wandb.Artifact(make_artifact_name_safe(run.name or run.id), type="model")
    artifact.add_dir(str(saved["model"]))
    run.log_artifact(artifact)
    run.summary.update(results)
    run.finish()  # else the next job of a sweep would be logged into this one
