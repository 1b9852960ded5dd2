"""Preparation of a training run from a config: data, completed config, model, transforms and task."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lightning
from omegaconf import DictConfig
from torchmetrics import Metric

from mm.applying import count_splits
from mm.assembly import finish
from mm.assembly.adapters import attach_adapters
from mm.assembly.construct import build
from mm.assembly.distillation import load_teachers
from mm.assembly.provenance import Provenance
from mm.assembly.settings import check_settings
from mm.assembly.tokenizers import check_tokenizers, finish_tokenizers
from mm.assembly.trainer import keep_callbacks
from mm.assembly.warm_start import load_weights, read_init_from
from mm.baselines import BaselineReport
from mm.data.module import DataModule
from mm.data.summary import describe_splits
from mm.data.targets import check_labelled
from mm.evaluation.zero_shot import check_alignment
from mm.messages import say
from mm.model import MultimodalModel
from mm.quiet import silence_lightning
from mm.tasks.base import Task
from mm.tasks.supervised import Supervised
from mm.types import Transform


@dataclass
class TrainingRun:
    """A training run that is prepared, before its first step.

    Attributes:
        cfg: The config, completed with the values that follow from the data.
        data: The data module, with the transforms of the model.
        task: The LightningModule that trains the model.
        metrics: Head name to its metrics by name.
        folder: The run folder.
        provenance: The command, or the call from Python, that started the run.
        baseline: The classical models that were fitted on the same rows, after the training; None if there are none.
        notes: Sentences on the baseline.
        started: Start time, in seconds since the epoch.
    """

    cfg: DictConfig
    data: DataModule
    task: Task
    metrics: dict[str, dict[str, Metric]]
    folder: Path
    provenance: Provenance
    baseline: BaselineReport | None = None
    notes: list[str] = field(default_factory=list)
    started: float = field(default_factory=time.time)


def prepare_run(cfg: DictConfig, folder: Path, provenance: Provenance) -> TrainingRun:
    """Build data, model and task of a composed config, and complete the config. Nothing is written yet.

    Args:
        cfg: The config of a verb that trains. The values that follow from the data are filled in.
        folder: The run folder.
        provenance: The command and the keys that it sets.

    Raises:
        ValueError: If a setting is invalid, or does not fit the data.
    """
    silence_lightning()
    seed_everything(cfg.seed)
    keep_callbacks(cfg, provenance.overrides)
    data: DataModule = finish.build_data(cfg)
    check_splits(cfg, data)
    counts = ", ".join(f"{name} {count}" for name, count in count_splits(data).items())
    say("\n".join([f"{data.source}: {counts} rows", *(f"  {line}" for line in describe_splits(data.table))]))
    model = prepare_model(cfg, data, provenance)
    task, metrics = prepare_task(cfg, model, data)
    return TrainingRun(cfg, data, task, metrics, folder, provenance)


def prepare_model(cfg: DictConfig, data: DataModule, provenance: Provenance) -> MultimodalModel:
    """Complete a config, build its model, and set the transforms of the data.

    Args:
        cfg: The config. The values that follow from the data are filled in.
        data: The data, which gets the transforms that the model needs.
        provenance: The command and the keys that it sets.

    Raises:
        ValueError: If a setting is invalid, or does not fit the data.
    """
    finish.finish_model(cfg, data.spec, provenance.named)
    sources = read_init_from(cfg)
    finish_tokenizers(cfg, data)
    model = finish.build_model(cfg)
    if not cfg.get("resume"):
        check_tokenizers(cfg, model, sources)
        load_weights(sources, model)
    attach_adapters(cfg, model)
    needs = {name: model.encoders[model.shared_encoders.get(name, name)].input for name in model.inputs}
    finish.finish_transforms(cfg, data.spec, needs, provenance.named)
    data.use({name: build(cfg, f"datamodule.transforms.{name}") for name in cfg.datamodule.transforms})
    return model


def check_splits(cfg: DictConfig, data: DataModule) -> None:
    """Raise a ValueError if a split that the training needs is empty, before anything is built."""
    for split in ("train", *(["val"] if cfg.trainer.limit_val_batches else [])):
        data.rows(split)


def prepare_task(
    cfg: DictConfig, model: MultimodalModel, data: DataModule
) -> tuple[Task, dict[str, dict[str, Metric]]]:
    """Build the task of a run, and check that its settings fit the data.

    Args:
        cfg: The config. The direction of the monitored metric is filled in.
        model: The model.
        data: The data, with the transforms of the model.

    Returns:
        The task, and the metrics of each head by name.

    Raises:
        ValueError: If a setting is invalid; the message names the key.
    """
    if not isinstance(cfg.compile, bool):
        raise ValueError(f"compile: got '{cfg.compile}', wanted true or false")
    if cfg.compile:
        model.compile()
    for key in ("optimizer", "scheduler", "nonfinite"):
        if cfg.task.get(key) is None:
            raise ValueError(f"task.{key}: got null, which only a task that tests can do without; leave the key out")
    metrics = finish.build_metrics(cfg)
    task = build_task(cfg, model, metrics, data.transforms)
    check_settings(cfg, task)
    finish.resolve_monitor(cfg, task.val_names())
    check_alignment(task, data)
    if isinstance(task, Supervised):
        heads = [name for name in model.heads if name in data.table.targets]
        check_labelled(data.table, heads, cfg.monitor.metric if cfg.trainer.limit_val_batches else None)
    return task, metrics


def build_task(
    cfg: DictConfig,
    model: MultimodalModel,
    metrics: Mapping[str, Mapping[str, Metric]],
    transforms: Mapping[str, Transform],
) -> Any:
    """Build the task of a config, with its teachers.

    Args:
        cfg: The config.
        model: The model to train.
        metrics: Head name to its metrics by name.
        transforms: Input name to the transform of the model, which the teachers must share.

    Raises:
        ValueError: If an argument of the task is invalid.
    """
    if "metrics" in cfg.task:
        raise ValueError(
            "task.metrics: nothing reads it, because every metric belongs to a head; set "
            "+model.heads.HEAD.metrics.NAME={_target_: CLASS}, with allow=[PACKAGE] for a class of your own"
        )
    try:
        parts: dict[str, Any] = {"metrics": metrics} if metrics else {}
        return build(cfg, "task", _partial_=True)(model=model, **parts, **load_teachers(cfg, transforms))
    except (TypeError, ValueError) as error:
        raise ValueError(f"task: {error}" if isinstance(error, TypeError) else str(error)) from error


def seed_everything(seed: int) -> None:
    """Seed all random number generators.

    Raises:
        ValueError: If the seed is not an integer from 0 to 2**32 - 1.
    """
    if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 2**32:
        raise ValueError(f"seed: got {seed}, wanted a whole number from 0 to {2**32 - 1}")
    lightning.seed_everything(seed, workers=True, verbose=False)
