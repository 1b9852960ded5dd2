"""Train a model on data from Python, as `mm train` does."""

import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import Logger
from omegaconf import DictConfig, OmegaConf

from mm.applying import count_splits
from mm.assembly.compose import DEFAULT_HEADS, compose_config, find_head_option, model_overrides
from mm.assembly.construct import construct, escape
from mm.assembly.finish import build_metrics, fill, resolve_monitor
from mm.assembly.settings import check_settings
from mm.callbacks.periodic_checkpoint import WholeFileIO
from mm.checkpoint import TrainedModel
from mm.data.module import DataModule
from mm.modalities import default_transforms
from mm.model import MultimodalModel
from mm.quiet import preserved_state
from mm.reports import Report, Table
from mm.runs.card import model_card
from mm.runs.folder import claim
from mm.runs.results import write_metrics
from mm.tasks.supervised import Supervised
from mm.types import DataSpec


@dataclass(repr=False)
class TrainingReport(Report):
    """Results of a training.

    Attributes:
        model: The trained model, with the weights of the best validation, in evaluation mode.
        metrics: Name to value: the best monitored value, the test metrics, epochs, steps and seconds.
        folder: The run folder, None where the run has no name.
        interrupted: Whether Ctrl-C ended the training; the weights are the last ones then, and nothing was tested.
    """

    model: TrainedModel
    metrics: Mapping[str, float]
    folder: Path | None = None
    interrupted: bool = False

    def table(self) -> Table:
        """Return one row for each metric of the whole model; metrics of subsets of inputs are in `.metrics`."""
        return Table(["metric", "value"], [(name, value) for name, value in self.metrics.items() if "[" not in name])

    def save(self, folder: str | Path) -> Path:
        """Write metrics.json and the model directory, `model`, into a folder."""
        folder = super().save(folder)
        self.model.save(folder / "model")
        return folder


def train(
    model: MultimodalModel,
    data: DataModule,
    *,
    max_epochs: int | None = None,
    max_steps: int | None = None,
    lr: float | None = None,
    seed: int = 0,
    run: str | None = None,
    logger: Logger | Sequence[Logger] | None = None,
    callbacks: Sequence[Callback] = (),
    progress_bar: bool = True,
    overrides: Sequence[str] = (),
    inplace: bool = False,
) -> TrainingReport:
    """Train a model, test the weights of its best validation, and return both.

    Args:
        model: The model, such as that of `mm.build`.
        data: A data module, such as `mm.Manifest`. It is not changed.
        max_epochs: Epochs; default: that of `conf/trainer/default.yaml`.
        max_steps: Optimizer steps, which end the training before `max_epochs` does.
        lr: Peak learning rate; default: that of `conf/task/optimizer/adamw.yaml`.
        seed: Seed of dropout, augmentation and whatever else is random. The caller's random state is left as it is.
        run: Name of the run: its folder, `outputs/RUN`, holds checkpoints, metrics and the model directory. None:
            nothing is written.
        logger: Lightning loggers; default: none.
        callbacks: Further Lightning callbacks.
        progress_bar: Whether a progress bar is shown.
        overrides: Hydra overrides of the config of `mm train`, such as "task.modality_dropout=0.2".
        inplace: Train `model` itself in place of a copy.

    Returns:
        The report. After Ctrl-C it holds the last weights.

    Raises:
        ValueError: If the data lacks an input or target of the model, or a setting is out of range.

    Example:
        >>> import mm
        >>> rows = [{"text": f"fine {n}", "mood": "good"} for n in range(20)]
        >>> rows += [{"text": f"poor {n}", "mood": "bad"} for n in range(20)]
        >>> data = mm.Manifest(rows, targets=["mood"], num_workers=0)
        >>> report = mm.train(mm.build(data.spec, text="hashed_ngrams"), data, max_epochs=1, progress_bar=False)
        >>> sorted(report.model.predict({"text": "fine"}))
        ['mood']
    """
    cfg = training_config(model, data.spec, overrides)
    for key, value in (("trainer.max_epochs", max_epochs), ("trainer.max_steps", max_steps), ("seed", seed)):
        if value is not None:
            OmegaConf.update(cfg, key, value)
    if lr is not None:
        cfg.task.optimizer.lr = lr
    with preserved_state(), run_folder(run) as folder:
        cfg.paths.run = escape(str(folder))
        lightning.seed_everything(seed, workers=True, verbose=False)
        bound = bind_data(data, model)
        for split in ("train", "val"):
            bound.rows(split)  # an empty split is an error before anything starts
        task = build_task(cfg, model if inplace else deepcopy(model))
        check_settings(cfg, task)
        resolve_monitor(cfg, task.val_names())
        trainer = build_trainer(cfg, folder, logger, callbacks, progress_bar)
        report = fit_and_test(cfg, trainer, task, bound)
        if run is not None:
            report.folder = folder
            write_metrics(folder, report.metrics, task.directions())
            report.model.save(folder / "model")
            report.model.path = folder / "model"
        return report


def fit_and_test(cfg: DictConfig, trainer: Trainer, task: Supervised, data: DataModule) -> TrainingReport:
    """Run the training and the test of the best weights."""
    started = time.time()
    try:
        trainer.fit(task, datamodule=data, weights_only=True)
    except SystemExit:  # Lightning's answer to Ctrl-C
        if not trainer.interrupted:
            raise
    results: dict[str, float] = {"train/epochs": trainer.current_epoch, "train/steps": trainer.global_step}
    best = next(one for one in trainer.checkpoint_callbacks if isinstance(one, ModelCheckpoint))
    if best.best_model_path and not trainer.interrupted:
        saved: Any = torch.load(best.best_model_path, map_location="cpu", weights_only=True)
        task.load_state_dict(saved["state_dict"])
        if best.best_model_score is not None:
            results[cfg.monitor.metric] = float(best.best_model_score)
    if bool((data.splits == "test").any()) and not trainer.interrupted:
        trainer.test(task, datamodule=data, verbose=False)
    results |= task.results | {"train/duration_s": round(time.time() - started, 3)}
    codecs = {name: data.reader(name) for name in data.spec.targets}
    trained = TrainedModel(
        task.model.eval(),
        data.transforms,
        codecs,
        data.spec,
        metrics=build_metrics(cfg),
        columns=dict(data.columns) or None,
        split=asdict(data.split),
        rows=data.fingerprint.tensors(),
        card=model_card(["mm.train"], data.source, count_splits(data), results, task.model),
    )
    return TrainingReport(trained, results, interrupted=trainer.interrupted)


def lightning_module(model: MultimodalModel, spec: DataSpec, overrides: Sequence[str] = ()) -> Supervised:
    """Return the LightningModule that trains a model, for a `Trainer` of one's own.

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
    return build_task(cfg, model)


def bind_data(data: DataModule, model: MultimodalModel) -> DataModule:
    """Return a copy of data that reads its inputs as the encoders of a model want them.

    Args:
        data: A data module, which is not changed.
        model: The model.

    Raises:
        ValueError: If the data lacks an input or target of the model.
    """
    spec = data.spec
    for names, there, kind in ((model.inputs, spec.inputs, "input"), (model.heads, spec.targets, "target")):
        for name in names:
            if name not in there:
                raise ValueError(f"{data.source}: has no {kind} '{name}' of the model, only {', '.join(there)}")
    needs = {name: model.encoders[model.shared_encoders.get(name, name)].input for name in model.inputs}
    return data.bind(default_transforms(spec, data.readers, needs))


def training_config(model: MultimodalModel, spec: DataSpec, overrides: Sequence[str]) -> DictConfig:
    """Return the config of `mm train` for a built model: its task, trainer and callbacks, and its heads' metrics."""
    options = {}
    for name, head in model.heads.items():
        kind = spec.targets[name].kind if name in spec.targets else ""
        options[name] = find_head_option(head) or DEFAULT_HEADS.get(kind, "classification")
    known = DataSpec(inputs={}, targets={name: spec.targets[name] for name in model.heads if name in spec.targets})
    cfg = compose_config("train", [*model_overrides(known, options), *overrides])
    for name, target in known.targets.items():
        fill(cfg.model.heads[name], {"classes": list(target.classes), **target.facts})
    return cfg


def build_task(cfg: DictConfig, model: MultimodalModel) -> Supervised:
    """Build the task of a config for a model."""
    node: Any = OmegaConf.to_container(cfg.task, resolve=True)
    return construct(node, "task", _partial_=True)(model=model, metrics=build_metrics(cfg))


def build_trainer(
    cfg: DictConfig,
    folder: Path,
    logger: Logger | Sequence[Logger] | None,
    callbacks: Sequence[Callback],
    progress_bar: bool,
) -> Trainer:
    """Build the trainer of a config with the callbacks that a run needs."""
    nodes: Any = OmegaConf.to_container(cfg.callbacks, resolve=True)
    left_out = {"periodic_checkpoint"}
    left_out |= (set() if progress_bar else {"progress_bar"}) | (set() if logger else {"lr", "prediction_table"})
    own = [construct(node, f"callbacks.{name}") for name, node in nodes.items() if name not in left_out]
    settings: Any = OmegaConf.to_container(cfg.trainer, resolve=True)
    return construct(settings, "trainer", _partial_=True)(
        callbacks=[*own, *callbacks],
        logger=logger or False,
        default_root_dir=str(folder),
        enable_progress_bar=progress_bar,
        plugins=[WholeFileIO()],
    )


@contextmanager
def run_folder(run: str | None) -> Iterator[Path]:
    """Yield the folder of a run: a claimed one that stays, or a temporary one."""
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
