"""Training of a prepared run: fit the model, test its best weights, and write the files of the run folder."""

import logging
import time
from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from math import ceil
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, Trainer
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import ModelCheckpoint, WeightAveraging
from omegaconf import DictConfig, OmegaConf

from mm.applying import count_faults, count_splits
from mm.assembly.adapters import has_adapters, merge_adapters
from mm.assembly.baselines import add_baseline, baseline_callbacks
from mm.assembly.detection import add_box_figures
from mm.assembly.loggers import build_loggers, finish_loggers, start_loggers
from mm.assembly.provenance import Provenance, resume_command
from mm.assembly.resuming import (
    check_resumable,
    describe_finished,
    find_newest_checkpoint,
    next_commands,
    save_rows,
)
from mm.assembly.run import TrainingRun, prepare_run
from mm.assembly.summary import describe_run
from mm.assembly.trainer import build_run_callbacks, build_trainer
from mm.assembly.training_report import TrainingReport
from mm.callbacks.periodic_checkpoint import newest_first
from mm.callbacks.save_at_steps import SaveAtSteps
from mm.checkpoint import TrainedModel
from mm.data.module import DataModule
from mm.evaluation.zero_shot import zero_shot_after_training
from mm.files import refusal, shown
from mm.messages import is_first_process, plain, say
from mm.runs.card import model_card
from mm.runs.results import save_results, write_metrics
from mm.signals import Stopped
from mm.tasks import guards
from mm.tasks.base import Task
from mm.tasks.distributed.sharding import FSDP2Strategy

logger = logging.getLogger("mm")


def train_config(cfg: DictConfig, folder: Path, provenance: Provenance) -> TrainingReport | list[str]:
    """Train the model of a config, or resume its training, and test it.

    Args:
        cfg: The config of `mm train`.
        folder: The run folder.
        provenance: The command and the keys that it sets.

    Returns:
        The report; for a run that is already finished, the lines that say so.

    Raises:
        ValueError: If a setting is invalid, or does not fit the data.
    """
    if lines := describe_finished(cfg, folder, provenance):
        return lines
    run = prepare_run(cfg, folder, provenance)
    trainer = fit_run(run)
    length = "max_steps" if stopped_by_steps(trainer) else None
    report = finish_run(run, trainer)
    measurable = bool(report.model.task or cfg.model.heads)
    report.commands = next_commands(cfg, folder, provenance, measurable, length)
    return report


def fit_run(run: TrainingRun) -> Trainer:
    """Train or resume a run that was started by `mm train`.

    Args:
        run: The prepared run.

    Returns:
        The Trainer after the training.

    Raises:
        ValueError: If settings of the Trainer do not fit the task, or if the run can't be resumed.
    """
    cfg, folder = run.cfg, run.folder
    resume = find_newest_checkpoint(folder) if cfg.resume else None
    callbacks = [*build_run_callbacks(cfg, run.task.model), *baseline_callbacks(cfg)]
    trainer = build_trainer(cfg, callbacks, build_loggers(cfg, folder, run.provenance), folder)
    sharded = isinstance(trainer.strategy, FSDP2Strategy)
    if sharded:
        guards.check_sharding(run.task, trainer)  # before any callback begins
    if sharded and has_adapters(cfg):
        raise ValueError("peft: trainer=fsdp does not share out adapters; use trainer=ddp")
    prepare_saving(run, callbacks, sharded)
    if not sharded and resume and Path(resume).is_dir():
        raise ValueError(
            f"{shown(Path(resume))} is a sharded checkpoint; resume with trainer=fsdp (trainer.devices=1 is enough)"
        )
    if is_first_process():
        if cfg.resume:
            check_resumable(cfg, folder, run.data)
        say("\n".join(describe_run(run)))
        begin_folder(run)
    start_loggers(cfg, trainer, folder, run.task.val_names())
    fit(run, trainer, resume)
    return trainer


def prepare_saving(run: TrainingRun, callbacks: list[Callback], sharded: bool) -> None:
    """Set the function with which the callback `SaveAtSteps` saves the model.

    Raises:
        ValueError: If the model can't be saved during training: if it is sharded or has adapters, or if a callback
            averages its weights.
    """
    for callback in callbacks:
        if not isinstance(callback, SaveAtSteps):
            continue
        if sharded or has_adapters(run.cfg):
            raise ValueError(
                "callbacks=save_at_steps saves whole models: not those of trainer=fsdp, nor adapters; leave it out"
            )
        if any(isinstance(other, WeightAveraging) for other in callbacks):
            raise ValueError(
                "callbacks: save_at_steps would save the weights as they are, not ema's average; leave one out"
            )
        callback.save = partial(save_model, run)


def begin_folder(run: TrainingRun) -> None:
    """Write the files that a run folder contains before the first step, and check that the model can be saved."""
    (run.folder / "metrics.json").unlink(missing_ok=True)  # a run that goes on is not finished
    run.provenance.save(run.folder)  # first: a process that is started again knows its run by it
    OmegaConf.save(run.cfg, run.folder / "config.yaml", resolve=True)
    save_rows(run.data, run.folder)
    trained_model(run, {}).check_saving(run.folder / "model")


def fit(run: TrainingRun, trainer: Trainer, checkpoint: str | None = None) -> None:
    """Train the model of a run, optionally from a checkpoint.

    Args:
        run: The run.
        trainer: The Trainer.
        checkpoint: Path of the checkpoint to resume from; None: the training starts from the beginning.

    Raises:
        ValueError: If a setting of the Trainer is invalid.
    """
    try:
        trainer.fit(run.task, datamodule=run.data, ckpt_path=checkpoint, weights_only=True)
    except MisconfigurationException as error:
        raise ValueError(f"trainer: {error}") from error
    except BaseException as end:
        if run.provenance.from_python and isinstance(end, SystemExit) and trainer.interrupted:
            return  # Lightning's answer to Ctrl-C
        report_end(run, trainer, end)
        raise


def report_end(run: TrainingRun, trainer: Trainer, end: BaseException) -> None:
    """Log in rank 0 that a run has ended early, and how to resume it.

    Args:
        run: The run.
        trainer: The Trainer.
        end: The exception that ended the run.
    """
    if refusal(end, run.folder) is not None:
        return  # the error message names the command that resumes the run
    if is_first_process() and not run.provenance.from_python:
        logger.warning(describe_end(run, trainer, end))
    elif isinstance(end, Stopped) and end.together:
        end.code = 0
    if isinstance(end, Stopped):
        end.reported = True


def describe_end(run: TrainingRun, trainer: Trainer, end: BaseException) -> str:
    """Describe why and when a run ended early, which checkpoint it left, and which command resumes it."""
    reason = f"stopped by {end.signal}" if isinstance(end, Stopped) else "the run ended"
    when = f"after step {trainer.global_step}" if trainer.global_step else "before its first step"
    checkpoints = newest_first(run.folder / "checkpoints")
    advice = f"go on with: {resume_command(run.cfg, run.folder, run.provenance)}"
    left = f"{plain(shown(checkpoints[0]))} is kept, {advice}" if checkpoints else "nothing is kept"
    return f"{reason} {when}; {left}"


def finish_run(run: TrainingRun, trainer: Trainer, write: bool = True) -> TrainingReport:
    """Test the weights of the best validation, and write the results and the model directory.

    Args:
        run: The run, after its training.
        trainer: The Trainer.
        write: Whether rank 0 writes the files into the run folder.

    Returns:
        The report; only in rank 0 does it list files.
    """
    try:
        results = test_best_weights(run, trainer)
        gather(trainer, run.task, run.data)
        if isinstance(trainer.strategy, FSDP2Strategy):
            run.task.model = trainer.strategy.gather_model(run.task.model)
        files: dict[str, Path] = {}
        if trainer.is_global_zero:
            results |= measure_after_test(run, trainer)
            if is_tested(run, trainer):
                add_box_figures(run.task, run.data, run.data.rows("test").tolist(), results)
            if write:
                files = write_run(run, trainer, results)
            else:
                files = merge_adapters(run.cfg, run.task.model, None)
                results |= add_baseline(run, trainer)
    except Stopped as end:
        report_end(run, trainer, end)
        raise
    trained = trained_model(run, results)
    trained.model.eval()
    trained.path = files.get("model")
    folder = run.folder if write else None
    return TrainingReport(
        trained, results, folder, files, trainer.interrupted, baseline=run.baseline, notes=tuple(run.notes)
    )


def is_tested(run: TrainingRun, trainer: Trainer) -> bool:
    """Return whether a run is tested: it has test rows, and its training was not interrupted."""
    has_rows = bool((run.data.splits == "test").any()) and run.cfg.trainer.limit_test_batches != 0
    return has_rows and not trainer.interrupted


def measure_after_test(run: TrainingRun, trainer: Trainer) -> dict[str, float]:
    """Return the metrics that rank 0 computes alone: zero-shot accuracies, skipped steps, and counts of faulty rows."""
    results = zero_shot_after_training(run.task, run.data) if is_tested(run, trainer) else {}
    if run.task.nonfinite.skipped:
        results["train/skipped_steps"] = run.task.nonfinite.skipped
    return results | count_faults(run.data)


def test_best_weights(run: TrainingRun, trainer: Trainer) -> dict[str, float]:
    """Load the weights of the best validation into the model and test them, unless the training was interrupted.

    Without a best checkpoint the last weights are tested.

    Returns:
        The numbers of epochs and steps, the duration in seconds, the best monitored value, and the test metrics.
    """
    cfg, task = run.cfg, run.task
    results: dict[str, float] = {"train/epochs": trainer.current_epoch, "train/steps": trainer.global_step}
    checkpoints = (callback for callback in trainer.checkpoint_callbacks if isinstance(callback, ModelCheckpoint))
    best = next(checkpoints, None)
    if best is not None and best.best_model_path and not trainer.interrupted:
        saved: Any = trainer.strategy.load_checkpoint(best.best_model_path, weights_only=True)
        trainer.strategy.load_model_state_dict(saved)  # of a sharded model it is done by then
        if best.best_model_score is not None:
            results[cfg.monitor.metric] = float(best.best_model_score)
    elif best is not None and best.monitor is not None and not trainer.interrupted:
        reason = explain_no_validation(trainer)
        say(f"{reason}: there is no best {cfg.monitor.metric}, and the last weights are kept")
    if is_tested(run, trainer):
        trainer.test(task, datamodule=run.data, verbose=False)
    return results | dict(task.results) | {"train/duration_s": round(time.time() - run.started, 3)}


def stopped_by_steps(trainer: Trainer) -> bool:
    """Return whether `trainer.max_steps` ended the training before `trainer.max_epochs`, also within the last epoch."""
    steps, epochs = trainer.max_steps, trainer.max_epochs
    if steps == -1 or trainer.global_step < steps:
        return False
    # `current_epoch` is not used: Lightning counts the epoch in which the steps end as completed.
    return epochs in (None, -1) or steps < epochs * ceil(trainer.num_training_batches / trainer.accumulate_grad_batches)


def explain_no_validation(trainer: Trainer) -> str:
    """Explain why there was no validation in a training that has ended."""
    if not stopped_by_steps(trainer):
        return "validation never came"
    return f"trainer.max_steps={trainer.max_steps} stopped the run before its first validation"


def write_run(run: TrainingRun, trainer: Trainer, results: dict[str, float]) -> dict[str, Path]:
    """Write metrics, adapters, model directory, predictions, errors and figures of a run, and finish its loggers.

    Args:
        run: The run.
        trainer: The Trainer.
        results: Metric name to value; those of baselines are added.

    Returns:
        Kind of each file to its path.
    """
    cfg, task, folder = run.cfg, run.task, run.folder
    monitored = {cfg.monitor.metric: cfg.monitor.mode == "max"}
    write_metrics(folder, results, dict(task.directions()) | monitored)  # before anything that may fail
    saved = merge_adapters(cfg, task.model, folder)
    saved |= {"model": folder / "model", "config": folder / "config.yaml"}
    save_model(run, folder / "model", results)
    results |= add_baseline(run, trainer)  # after the model, which nothing may cost
    if run.baseline is not None:
        saved["baseline"] = folder / "baseline.json"
        run.baseline.write(saved["baseline"])
    rows = run.data.rows("test").tolist() if is_tested(run, trainer) else []
    saved |= save_results(folder, results, task, run.data, rows, truth=True, directions=monitored)
    finish_loggers(trainer, task, results, saved)
    return saved


def gather(trainer: Trainer, task: Task, data: DataModule) -> None:
    """Gather the predictions of all processes in rank 0, and the faults and notes about the data in every process.

    Args:
        trainer: The Trainer.
        task: The task, with the predictions of this process.
        data: The data, with the faults and notes of this process.
    """
    if trainer.world_size == 1:
        return
    everyone: list[Any] = [None] * trainer.world_size
    decoded = None if trainer.is_global_zero else task.decoded.hand_over()
    torch.distributed.all_gather_object(everyone, (decoded, data.faults, data.notes))
    for decoded, faults, notes in everyone:
        if decoded is not None and trainer.is_global_zero:
            task.decoded.take(decoded)
        data.faults |= faults
        data.notes |= notes


def trained_model(run: TrainingRun, results: Mapping[str, float]) -> TrainedModel:
    """Return the model of a run with its current weights and everything else that a model directory contains.

    Args:
        run: The run.
        results: Metric name to value, for the model card.
    """
    data, task = run.data, run.task
    settings: Any = OmegaConf.to_container(run.cfg.task, resolve=True)
    return TrainedModel(
        task.model,
        data.transforms,
        {**data.readers, **{name: data.reader(name) for name in task.model.heads}},
        data.spec,
        metrics=run.metrics,
        columns=dict(data.columns) or None,
        task=task.export_config(settings),
        split=asdict(data.split),
        rows=data.fingerprint.tensors(),
        card=model_card(run.provenance.words, data.source, count_splits(data), results, task.model),
    )


def save_model(run: TrainingRun, path: Path, results: Mapping[str, float]) -> None:
    """Write the model directory of a run with its current weights.

    Args:
        run: The run.
        path: Path of the model directory.
        results: Metric name to value, for the model card.
    """
    trained_model(run, results).save(path)
