"""Measure a model directory on data, for every subset of its inputs."""

from pathlib import Path
from typing import TYPE_CHECKING

from mm.cli._app import launch

if TYPE_CHECKING:
    from omegaconf import DictConfig


def main(argv: list[str]) -> None:
    launch("evaluate", argv, job)


def job(cfg: "DictConfig", folder: Path) -> None:
    from mm import checkpoint
    from mm.cli import _apply

    loaded = _apply.load(cfg)
    datamodule = _apply.datamodule(cfg, loaded, labelled=True)
    metrics = {
        head: checkpoint.build(node, ["torchmetrics", *cfg.allow]) for head, node in loaded.config["metrics"].items()
    }
    task, trainer = _apply.test(cfg, loaded, datamodule, cfg.split, metrics=metrics)
    _apply.conclude(trainer, task, datamodule, datamodule.rows(cfg.split).tolist(), folder, truth=True)
