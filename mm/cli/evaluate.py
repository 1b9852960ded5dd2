"""Measure a model directory on data, for every subset of its inputs."""

from pathlib import Path
from typing import TYPE_CHECKING

from mm.cli._app import launch

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from mm.assembly.provenance import Provenance


def main(argv: list[str]) -> None:
    launch("evaluate", argv, job)


def job(cfg: "DictConfig", folder: Path, provenance: "Provenance") -> None:
    from mm.assembly.evaluation import evaluate_config
    from mm.cli._render import print_curves, print_few_shot, print_test

    report, robustness = evaluate_config(cfg, folder, provenance)
    if report is not None:
        if robustness is not None:
            print_curves(robustness, folder / "robustness.csv")
        print_few_shot(report.metrics)
        print_test(report, folder)
