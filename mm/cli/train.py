"""Train a model, test it, and save it as a model directory."""

from pathlib import Path
from typing import TYPE_CHECKING

from mm.cli._verb import run_verb

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from mm.assembly.training_report import TrainingReport


def main(argv: list[str]) -> None:
    run_verb("train", argv, "mm.assembly.fitting:train_config", show)


def show(report: "TrainingReport | list[str]", cfg: "DictConfig", folder: Path) -> float | None:
    """Print the results, the files and what to type next, in the first process.

    Returns:
        The best value of the monitored metric, which a sweep optimizes.
    """
    from mm.cli._render import print_results
    from mm.messages import is_first_process

    if isinstance(report, list):  # a run that is resumed, and has nothing left to do
        if is_first_process():
            print("\n".join(report))
        return None
    if report.files:
        heads = list(report.model.model.heads)
        print_results(report.metrics, heads or [""], folder, report.files, report.commands, report.notes)
    return report.metrics.get(cfg.monitor.metric)
