"""Write one answer per row of new data."""

from pathlib import Path
from typing import TYPE_CHECKING

from mm.cli._app import launch

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from mm.assembly.provenance import Provenance


def main(argv: list[str]) -> None:
    launch("predict", argv, job)


def job(cfg: "DictConfig", folder: Path, provenance: "Provenance") -> None:
    from mm.assembly.model_data import predict_config
    from mm.cli._render import print_test

    print_test(predict_config(cfg, folder, provenance), folder)
