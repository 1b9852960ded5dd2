"""Train a model, test it, and leave it as a model directory."""

from pathlib import Path
from typing import TYPE_CHECKING

from mm.cli._app import launch

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from mm.assembly.provenance import Provenance


def main(argv: list[str]) -> None:
    launch("train", argv, job)


def job(cfg: "DictConfig", folder: Path, provenance: "Provenance") -> float | None:
    """Train a run, test it and print the results; nothing where a resumed run has nothing left to do.

    Returns:
        The best value of the monitored metric, which a sweep optimizes.
    """
    from mm.assembly.fitting import finish_run, fit_run
    from mm.assembly.resuming import describe_finished, next_commands
    from mm.assembly.run import prepare_run
    from mm.cli._render import print_results
    from mm.messages import is_first_process

    if lines := describe_finished(cfg, folder, provenance):
        if is_first_process():
            print("\n".join(lines))
        return None
    run = prepare_run(cfg, folder, provenance)
    trainer = fit_run(run)
    report = finish_run(run, trainer)
    if trainer.is_global_zero:
        commands = next_commands(run.cfg, folder, provenance, measurable=bool(report.model.task or cfg.model.heads))
        print_results(report.metrics, list(run.task.model.heads) or [""], folder, report.files, commands)
    return report.metrics.get(cfg.monitor.metric)
