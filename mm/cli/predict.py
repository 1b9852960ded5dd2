"""Write one answer per row of new data."""

from pathlib import Path
from typing import TYPE_CHECKING

from mm.cli._app import launch

if TYPE_CHECKING:
    from omegaconf import DictConfig


def main(argv: list[str]) -> None:
    launch("predict", argv, job)


def job(cfg: "DictConfig", folder: Path) -> None:
    from mm.cli import _apply

    loaded = _apply.load(cfg)
    if not len(loaded.model.heads):
        raise ValueError("this model predicts nothing: it has no head; use mm evaluate")
    datamodule = _apply.datamodule(cfg, loaded, labelled=False)
    task, trainer = _apply.test(cfg, loaded, datamodule, "all")
    # Rows that were left out while the table was read are in no split, but have their line too.
    _apply.conclude(trainer, task, datamodule, list(range(len(datamodule.table.ids))), folder, truth=False)
