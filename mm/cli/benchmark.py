"""Measure how fast a training configuration runs, what its steps wait for, and how a loop by hand compares."""

from pathlib import Path
from typing import TYPE_CHECKING

from mm.cli._app import launch
from mm.files import shown

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from mm.assembly.provenance import Provenance


def main(argv: list[str]) -> None:
    launch("benchmark", argv, job)


def job(cfg: "DictConfig", folder: Path, provenance: "Provenance") -> None:
    from mm.assembly.profiling import benchmark_config

    profile = benchmark_config(cfg, folder, provenance)
    if profile is not None:
        print(profile.summary())
        print(shown(folder))
