"""Checks of training settings that need the built task."""

from typing import Any

import torch
from omegaconf import DictConfig

from mm.tasks import guards


def check_settings(cfg: DictConfig, task: Any) -> None:
    """Check the arguments of the optimizer, and that the settings of the trainer fit the task.

    Args:
        cfg: The completed config.
        task: The task that was built from it.

    Raises:
        ValueError: If a setting is invalid; the message names the key.
    """
    try:
        task.optimizer([torch.nn.Parameter(torch.zeros(1, 1))])
    except (TypeError, ValueError) as error:  # torch's message does not name the key
        raise ValueError(f"task.optimizer: {error}") from error
    if str(cfg.trainer.precision) == "16-mixed" and cfg.task.optimizer.get("fused"):
        raise ValueError(guards.FUSED)  # before a trainer on a CPU changes the precision
    for key in ("max_epochs", "max_steps"):
        if cfg.trainer[key] == 0 or (cfg.trainer[key] or 1) < -1:
            raise ValueError(f"trainer.{key}: got {cfg.trainer[key]}, wanted 1 or more, or -1 for no end")
    guards.check_length(task.scheduler, cfg.trainer.max_epochs, cfg.trainer.max_steps)
