"""Measure the speed of a training configuration: what its steps wait for, and its ratio to a plain PyTorch loop."""

from pathlib import Path
from typing import TYPE_CHECKING

from mm.cli._verb import run_verb
from mm.files import shown

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from mm.profiling.benchmark import Profile


def main(argv: list[str]) -> None:
    run_verb("benchmark", argv, "mm.assembly.profiling:benchmark_config", show)


def show(profile: "Profile", cfg: "DictConfig", folder: Path) -> None:
    """Print the measurements, the recommended changes of settings, and the run folder."""
    print(profile.summary())
    print(shown(folder))
