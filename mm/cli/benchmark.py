"""Measure how fast a training configuration runs, what its steps wait for, and how a loop by hand compares."""

from pathlib import Path
from typing import TYPE_CHECKING

from mm.cli._app import launch, save_overrides, shown
from mm.messages import is_first_process

if TYPE_CHECKING:
    from omegaconf import DictConfig


def main(argv: list[str]) -> None:
    launch("benchmark", argv, job)


def job(cfg: "DictConfig", folder: Path) -> None:
    """A training run of warmup + warmup + steps batches, without validation, test and checkpoints."""
    from lightning.pytorch.callbacks import Checkpoint, EarlyStopping
    from omegaconf import OmegaConf

    from mm.callbacks.save_at_steps import SaveAtSteps
    from mm.cli import _loggers, _run, _trainer
    from mm.profiling.benchmark import benchmark, check_length
    from mm.runs.results import write_metrics

    check_length(cfg.steps, cfg.warmup)
    shorten(cfg)
    run = _run.prepare(cfg)
    built = _trainer.build_callbacks(cfg, run.task.model)
    left_out = (Checkpoint, EarlyStopping, SaveAtSteps)  # which wait for a validation, or save
    callbacks = [callback for callback in built if not isinstance(callback, left_out)]
    trainer = _trainer.build(cfg, callbacks, _loggers.build(cfg, folder))
    if is_first_process():
        OmegaConf.save(cfg, folder / "config.yaml", resolve=True)
        save_overrides(folder)
    _loggers.start(cfg, trainer, folder)
    profile = benchmark(run.task, run.datamodule, trainer, cfg.steps, cfg.warmup, cfg.compile)
    if profile is None:
        return
    print(profile.summary())
    profile.save(folder)
    write_metrics(folder, profile.metrics, {})
    print(shown(folder))


def shorten(cfg: "DictConfig") -> None:
    """Make the run as long as the measurement. Raises ValueError for a run to go on with."""
    if cfg.resume:
        raise ValueError("resume: a benchmark begins anew; leave it out")
    length = {"max_epochs": 1, "max_steps": -1, "max_time": None, "limit_train_batches": 1.0, "limit_val_batches": 0}
    for key, value in length.items():
        cfg.trainer[key] = value
