"""Find the largest batch size that fits into memory with the longest rows, or one per length bucket."""

from pathlib import Path
from typing import TYPE_CHECKING

from mm.cli._verb import run_verb
from mm.files import shown
from mm.messages import quote

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from mm.profiling.batch_size import BatchSizeReport


def main(argv: list[str]) -> None:
    run_verb("scale_batch", argv, "mm.assembly.profiling:scale_batch_config", show)


def show(report: "BatchSizeReport", cfg: "DictConfig", folder: Path) -> None:
    """Print the settings to type."""
    budgets = ", ".join(f"{name}: {most:g}" for name, most in report.budget.items())
    budget = f" {quote(f'datamodule.max_batch_length={{{budgets}}}')}" if budgets else ""
    print(f"type: datamodule.batch_size={report.batch_size}{budget}")
    print(shown(folder))
