"""Measurement of the speed of a training run, and of the largest batch size that fits in memory."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from lightning import Callback, Trainer
from lightning.pytorch.callbacks import Checkpoint, EarlyStopping
from omegaconf import DictConfig, OmegaConf, open_dict

from mm.assembly.config_checks import check_no_training
from mm.assembly.loggers import build_loggers, start_loggers
from mm.assembly.provenance import Provenance
from mm.assembly.run import prepare_run
from mm.assembly.trainer import build_run_callbacks, build_trainer, build_trial_trainer
from mm.assembly.training import prepare_training, training_config, training_folder
from mm.callbacks.save_at_steps import SaveAtSteps
from mm.data.module import DataModule
from mm.messages import is_first_process, say
from mm.model import MultimodalModel
from mm.profiling.batch_size import BatchSizeReport, check_limits, find_task_batch_size
from mm.profiling.benchmark import Profile, benchmark_task, check_length
from mm.quiet import preserved_state
from mm.runs.results import write_metrics

SHORT = {"max_epochs": 1, "max_steps": -1, "max_time": None, "limit_train_batches": 1.0, "limit_val_batches": 0}
LIMITS = ("max_batch_size", "memory_limit_gib", "memory_headroom")


def benchmark(
    model: MultimodalModel,
    data: DataModule,
    *,
    steps: int = 100,
    warmup: int = 10,
    seed: int = 0,
    overrides: Sequence[str] = (),
) -> Profile:
    """Measure the training speed of a model, and compare it with a plain PyTorch loop.

    Args:
        model: The model, such as that of `mm.build`. A copy of it is trained.
        data: A data module, such as `mm.Manifest`. It is not changed.
        steps: Number of measured batches, a multiple of 10.
        warmup: Number of batches before the measured ones.
        seed: Random seed.
        overrides: Hydra overrides of the config of `mm train`, such as "trainer.precision=bf16-mixed".

    Returns:
        The report: seconds per step and per phase of a step, rows per second, memory, and a recommended change.

    Raises:
        ValueError: If `steps` or `warmup` is invalid, or if the data lacks an input or target of the model.

    Example:
        >>> report = mm.benchmark(mm.build(data.spec), data, steps=50)  # doctest: +SKIP
        >>> print(report.summary())  # doctest: +SKIP
    """
    check_length(steps, warmup)
    cfg = training_config(model, data.spec, overrides)
    cfg.seed = seed
    shorten(cfg)
    with preserved_state(), training_folder(None) as folder:
        run = prepare_training(cfg, model, data, folder, Provenance("benchmark", from_python=True))
        trainer = build_trainer(cfg, [], False, folder, monitored=False)
        profile = benchmark_task(run.task, run.data, trainer, steps, warmup, cfg.compile)
    assert profile is not None  # of one process
    return profile


def scale_batch(
    model: MultimodalModel,
    data: DataModule,
    *,
    max_batch_size: int = 8192,
    memory_limit_gib: float | None = None,
    memory_headroom: float = 0.05,
    seed: int = 0,
    overrides: Sequence[str] = (),
) -> BatchSizeReport:
    """Find the largest batch size with which the training of a model fits in memory.

    Several batch sizes are tried in this process.

    Args:
        model: The model. A copy of it is trained.
        data: A data module. It is not changed.
        max_batch_size: Largest batch size to try.
        memory_limit_gib: Memory limit in GiB; None: the memory that is currently free.
        memory_headroom: Fraction of the free memory that is not used, at least 0 and below 1.
        seed: Random seed.
        overrides: Hydra overrides of the config of `mm train`.

    Returns:
        The report, with `batch_size`, and with `budget` if the data has a `max_batch_length`.

    Raises:
        ValueError: If an argument is out of range, or if not even a batch of one row fits in memory.

    Example:
        >>> mm.scale_batch(mm.build(data.spec), data).batch_size  # doctest: +SKIP
    """
    check_limits(max_batch_size, memory_limit_gib, memory_headroom)
    cfg = training_config(model, data.spec, overrides)
    cfg.seed = seed
    shorten(cfg, trial=True)
    with preserved_state(), training_folder(None) as folder:
        run = prepare_training(cfg, model, data, folder, Provenance("scale_batch", from_python=True))
        make = partial(build_trial_trainer, cfg, folder, monitored=False)
        return find_task_batch_size(run.task, run.data, make, max_batch_size, memory_limit_gib, memory_headroom)


def benchmark_config(cfg: DictConfig, folder: Path, provenance: Provenance) -> Profile | None:
    """Measure the speed of the training that a config describes, and write the report into the run folder.

    Args:
        cfg: The config of `mm benchmark`.
        folder: The run folder.
        provenance: The command and the keys that it sets.

    Returns:
        The report in rank 0; None in other processes.

    Raises:
        ValueError: If a setting is invalid.
    """
    check_length(cfg.steps, cfg.warmup)
    check_no_training(cfg, "benchmark")
    shorten(cfg)
    run = prepare_run(cfg, folder, provenance)
    left_out = (Checkpoint, EarlyStopping, SaveAtSteps)  # which wait for a validation, or save
    built: list[Callback] = build_run_callbacks(cfg, run.task.model)
    callbacks = [callback for callback in built if not isinstance(callback, left_out)]
    trainer = build_trainer(cfg, callbacks, build_loggers(cfg, folder, provenance), folder)
    if is_first_process():
        save_config(cfg, folder, provenance)
    start_loggers(cfg, trainer, folder, {})
    data: Any = run.data
    profile = benchmark_task(run.task, data, trainer, cfg.steps, cfg.warmup, cfg.compile)
    if profile is not None:
        profile.save(folder)
        write_metrics(folder, profile.metrics, {})
    return profile


def scale_batch_config(cfg: DictConfig, folder: Path, provenance: Provenance) -> BatchSizeReport:
    """Find the largest batch size with which the training of a config fits in memory, and write it into the run folder.

    Args:
        cfg: The config of `mm scale_batch`.
        folder: The run folder.
        provenance: The command and the keys that it sets.

    Returns:
        The report.

    Raises:
        ValueError: If a setting is invalid, or does not apply to `mm scale_batch`, such as `resume`.
    """
    limits = {name: cfg[name] for name in LIMITS}
    check_limits(**limits)
    check_no_training(cfg, "scale_batch")
    shorten(cfg, trial=True)
    if unread := [named.by for named in provenance.named if named.key.split(".")[0] in ("logger", "callbacks")]:
        say(f"mm scale_batch logs nothing and calls no callbacks; not read: {', '.join(unread)}")
    run = prepare_run(cfg, folder, provenance)
    save_config(cfg, folder, provenance)

    def make() -> Trainer:
        return build_trial_trainer(cfg, folder)

    report = find_task_batch_size(run.task, run.data, make, **limits)
    write_metrics(folder, report.metrics, {})
    return report


def save_config(cfg: DictConfig, folder: Path, provenance: Provenance) -> None:
    """Write the config of a measurement and its overrides into the run folder."""
    OmegaConf.save(cfg, folder / "config.yaml", resolve=True)
    provenance.save(folder)


def shorten(cfg: DictConfig, trial: bool = False) -> None:
    """Change the settings of the trainer such that it trains for one epoch without validation.

    Args:
        cfg: The config, changed in place.
        trial: Whether only memory is measured. Then there is no progress bar, and no accumulation of gradients, because
            memory does not depend on it.
    """
    with open_dict(cfg):
        cfg.trainer.update(SHORT)
        if trial:
            cfg.trainer.enable_progress_bar = False  # else Lightning adds one
            cfg.trainer.accumulate_grad_batches = 1
