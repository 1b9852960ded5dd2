"""Training of a model from Python, in the same way as `mm train`."""

import inspect
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from lightning import Callback
from lightning.pytorch.loggers import Logger
from omegaconf import DictConfig, OmegaConf, open_dict

from mm.assembly.adapters import attach_adapters
from mm.assembly.baselines import baseline_callbacks
from mm.assembly.compose import DEFAULT_HEADS, check_option, compose_config, find_head_option, model_overrides
from mm.assembly.construct import escape
from mm.assembly.finish import build_metrics, fill, target_facts
from mm.assembly.fitting import begin_folder, finish_run, fit
from mm.assembly.loggers import build_loggers, start_loggers
from mm.assembly.overrides import parse_override
from mm.assembly.provenance import Provenance
from mm.assembly.run import TrainingRun, build_task, check_splits, prepare_task, seed_everything
from mm.assembly.saving import warn_of_saving
from mm.assembly.trainer import build_callbacks, build_trainer
from mm.assembly.training_report import TrainingReport
from mm.assembly.warm_start import load_weights, read_init_from
from mm.configurable import recorded_arguments, to_config
from mm.data.module import DataModule
from mm.data_source import check_data_source
from mm.modalities import default_transforms
from mm.model import MultimodalModel
from mm.quiet import preserved_state
from mm.runs.folder import claim
from mm.tasks.supervised import Supervised
from mm.types import DataSpec


def train(
    model: MultimodalModel,
    data: DataModule,
    *,
    max_epochs: int | None = None,
    max_steps: int | None = None,
    lr: float | None = None,
    seed: int = 0,
    run: str | None = None,
    logger: str | Logger | Sequence[str | Logger] | None = None,
    callbacks: Sequence[Callback] = (),
    progress_bar: bool = True,
    baseline: bool = False,
    overrides: Sequence[str] = (),
    inplace: bool = False,
) -> TrainingReport:
    """Train a model, test the weights of its best validation, and return the trained model with its metrics.

    Args:
        model: The model, such as that of `mm.build`.
        data: A data module, such as `mm.Manifest`. It is not changed.
        max_epochs: Maximum number of epochs; default: that of `conf/trainer/default.yaml`.
        max_steps: Maximum number of optimizer steps, which may end the training before `max_epochs` does.
        lr: Peak learning rate; default: that of `conf/task/optimizer/adamw.yaml`.
        seed: Random seed of dropout, augmentation and everything else. The random state of the caller is not changed.
        run: Name of the run. Its folder, `outputs/RUN`, gets checkpoints, metrics and the model directory. None:
            nothing is written.
        logger: Lightning loggers, or names of loggers such as "wandb" or "csv"; default: none. A logger given by name
            has the settings of `conf/logger` and writes into the run folder.
        callbacks: Further Lightning callbacks.
        progress_bar: Whether to show a progress bar.
        baseline: Whether to fit, after the training, classical models on the same rows; see `mm.baseline`.
        overrides: Hydra overrides of the config of `mm train`, such as "task.modality_dropout=0.2".
        inplace: Whether to train `model` itself instead of a copy.

    Returns:
        The report. If Ctrl-C ended the training, its model has the last weights. A warning of the logger `mm` names a
        part with which the model can't be saved or loaded.

    Raises:
        ValueError: If the data lacks an input or target of the model, or if a setting is invalid.

    Example:
        >>> import mm
        >>> rows = [{"text": f"fine {n}", "mood": "good"} for n in range(20)]
        >>> rows += [{"text": f"poor {n}", "mood": "bad"} for n in range(20)]
        >>> data = mm.Manifest(rows, targets=["mood"], num_workers=0)
        >>> report = mm.train(mm.build(data.spec, text="hashed_ngrams"), data, max_epochs=1, progress_bar=False)
        >>> sorted(report.model.predict({"text": "fine"}))
        ['mood']
    """
    check_data_source(data)
    warn_of_saving(model, has_run=run is not None)
    loggers, named = split_loggers(logger, run, overrides)
    cfg = training_config(model, data.spec, [*overrides, f"logger=[{','.join(named)}]"])
    settings = {"trainer.max_epochs": max_epochs, "trainer.max_steps": max_steps, "task.optimizer.lr": lr, "seed": seed}
    settings |= {"baseline": True} if baseline else {}
    for key, value in settings.items():
        if value is not None:
            OmegaConf.update(cfg, key, value)
    OmegaConf.update(cfg, "trainer.enable_progress_bar", progress_bar, force_add=True)
    words = [
        f"{key}={str(value).lower() if value is True else value}"
        for key, value in settings.items()
        if value is not None
    ]
    provenance = Provenance(overrides=(*overrides, *words), from_python=True)
    with preserved_state(), training_folder(run) as folder:
        prepared = prepare_training(cfg, model, data, folder, provenance, inplace)
        left_out = {"periodic_checkpoint"}
        left_out |= (set() if progress_bar else {"progress_bar"}) | (
            set() if loggers or named else {"lr", "prediction_table"}
        )
        every = [*build_callbacks(cfg, without=left_out), *baseline_callbacks(cfg), *callbacks]
        loggers += build_loggers(cfg, folder, provenance) if named else []
        trainer = build_trainer(cfg, every, loggers or False, folder, monitored=False)
        if run is not None:
            complete_config(prepared)
            begin_folder(prepared)
        if named:
            start_loggers(cfg, trainer, folder, prepared.task.val_names())
        fit(prepared, trainer)
        return finish_run(prepared, trainer, write=run is not None)


def split_loggers(
    logger: str | Logger | Sequence[str | Logger] | None, run: str | None, overrides: Sequence[str]
) -> tuple[list[Logger], list[str]]:
    """Return the loggers that are objects, and the names of the others.

    Args:
        logger: The argument of `train`.
        run: Name of the run; None if nothing is written.
        overrides: Hydra overrides, which must not choose a logger as well.

    Raises:
        ValueError: If a name is unknown, a named logger has no run folder to write to, or an override chooses a logger.
    """
    chosen = [logger] if isinstance(logger, str | Logger) else list(logger or ())
    named = [one for one in chosen if isinstance(one, str)]
    for name in named:
        check_option("logger", name, "logger")
    if named and run is None:
        raise ValueError(f"logger: '{named[0]}' writes into the run folder; give the run a name, such as run='first'")
    for word in overrides:
        if parse_override(word)[0] == "logger":
            raise ValueError(f"overrides: got '{word}'; choose loggers with the argument logger, such as logger='csv'")
    return [one for one in chosen if isinstance(one, Logger)], named


def prepare_training(
    cfg: DictConfig,
    model: MultimodalModel,
    data: DataModule,
    folder: Path,
    provenance: Provenance,
    inplace: bool = False,
) -> TrainingRun:
    """Build the task of a config for a model and data that were built in Python.

    Args:
        cfg: The config of `mm train`, see `training_config`; it is changed in place.
        model: The model.
        data: The data, which is not changed.
        folder: The run folder.
        provenance: The call from Python that starts the run.
        inplace: Whether to train `model` itself instead of a copy.

    Raises:
        ValueError: If the data lacks an input or target of the model, or if a setting is invalid.
    """
    cfg.paths.run = escape(str(folder))
    seed_everything(cfg.seed)
    bound = bind_data(data, model)
    check_splits(cfg, bound)
    trained = model if inplace else deepcopy(model)
    load_weights(read_init_from(cfg), trained)
    attach_adapters(cfg, trained)
    task, metrics = prepare_task(cfg, trained, bound)
    return TrainingRun(cfg, bound, task, metrics, folder, provenance)


def lightning_module(model: MultimodalModel, spec: DataSpec, overrides: Sequence[str] = ()) -> Supervised:
    """Return the LightningModule that trains a model, for a `Trainer` that you configure yourself.

    Args:
        model: The model.
        spec: Inputs and targets of the data, `data.spec`.
        overrides: Hydra overrides of the config of `mm train`, such as "task.optimizer.lr=3e-4".

    Example:
        >>> task = mm.lightning_module(model, data.spec)  # doctest: +SKIP
        >>> Trainer(max_epochs=3).fit(task, mm.bind_data(data, model))  # doctest: +SKIP
    """
    cfg = training_config(model, spec, overrides)
    cfg.task.nonfinite.folder = None  # nothing is written
    return build_task(cfg, model, build_metrics(cfg), {})


def bind_data(data: DataModule, model: MultimodalModel) -> DataModule:
    """Return a copy of a data module with the transforms that the encoders of a model require.

    Args:
        data: A data module, which is not changed.
        model: The model.

    Raises:
        ValueError: If the data lacks an input or target of the model.
    """
    check_data_source(data)
    spec = data.spec
    for names, there, kind in ((model.inputs, spec.inputs, "input"), (model.heads, spec.targets, "target")):
        for name in names:
            if name not in there:
                raise ValueError(f"{data.source}: has no {kind} '{name}' of the model, only {', '.join(there)}")
    needs = {name: model.encoders[model.shared_encoders.get(name, name)].input for name in model.inputs}
    return data.bind(default_transforms(spec, data.readers, needs))


def training_config(model: MultimodalModel, spec: DataSpec, overrides: Sequence[str]) -> DictConfig:
    """Return the config of `mm train` for a model that was built in Python.

    Args:
        model: The model.
        spec: Inputs and targets of the data.
        overrides: Hydra overrides.

    Returns:
        The config, with the settings of task, trainer and callbacks, and the metrics of the model's heads.
    """
    options = {}
    for name, head in model.heads.items():
        kind = spec.targets[name].kind if name in spec.targets else ""
        options[name] = find_head_option(head) or DEFAULT_HEADS.get(kind, "classification")
    known = DataSpec(inputs={}, targets={name: spec.targets[name] for name in model.heads if name in spec.targets})
    cfg = compose_config("train", [*model_overrides(known, options), *overrides])
    for name, target in known.targets.items():
        fill(cfg.model.heads[name], target_facts(target))
    return cfg


def describe_model(model: MultimodalModel) -> list[str]:
    """Return the settings of a model that differ from the defaults of its classes, by which `mm.compare` groups runs.

    Args:
        model: The model.

    Returns:
        Overrides such as `model.fusion._target_=mm.fusion.gated.GatedFusion`.

    Raises:
        ValueError: If the constructor arguments of a part were not recorded.
    """
    parts = {f"encoders.{name}": part for name, part in model.encoders.items()} | {"fusion": model.fusion}
    words = [f"model.embed_dim={recorded_arguments(model)['embed_dim']}"]
    for place, part in (parts | {f"heads.{name}": head for name, head in model.heads.items()}).items():
        defaults = {name: one.default for name, one in inspect.signature(type(part)).parameters.items()}
        for name, value in to_config(part).items():
            default = defaults.get(name, inspect.Parameter.empty)
            if name == "_target_" or (default is not inspect.Parameter.empty and value != to_plain(default)):
                words.append(f"model.{place}.{name}={value}")
    return words


def to_plain(default: Any) -> Any:
    """Convert the default of an argument to plain data, or return it unchanged if that is not possible."""
    try:
        return to_config(default)
    except ValueError:
        return default


def complete_config(run: TrainingRun) -> None:
    """Write the model and the data that were built in Python into the config and the provenance of a run.

    Args:
        run: The run, changed in place.

    Raises:
        ValueError: If the constructor arguments of a part of the model were not recorded.
    """
    cfg, model, data = run.cfg, run.task.model, run.data
    words = (*run.provenance.overrides, *describe_model(model))
    run.provenance = replace(run.provenance, overrides=words)
    parts = to_config(model)
    for name, head in parts["heads"].items():
        head |= {key: OmegaConf.to_container(cfg.model.heads[name][key]) for key in ("target_codec", "metrics")}
    with open_dict(cfg):
        cfg.model = escape(parts)
        cfg.datamodule = {
            "_target_": f"{type(data).__module__}.{type(data).__qualname__}",
            "path": escape(data.source),
            "columns": escape(dict(data.columns)),
            "split": asdict(data.split),
            "seed": data.seed,
            "batch_size": data.batching.batch_size,
            "transforms": escape(to_config(data.transforms)),
        }


@contextmanager
def training_folder(run: str | None) -> Iterator[Path]:
    """Context manager with the folder of a run, which is temporary if the run has no name.

    Args:
        run: Name of the run; None: a temporary folder, which is removed at the end.

    Yields:
        The folder, which no other process uses.
    """
    if run is None:
        with tempfile.TemporaryDirectory() as name:
            yield Path(name)
        return
    claimed = claim(Path("outputs", run).absolute(), typed=True)
    try:
        yield claimed.path
    except BaseException:
        claimed.discard()
        raise
    finally:
        claimed.release()
