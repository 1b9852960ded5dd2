"""A model directory and the data that it is applied to, from the config of a verb."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lightning import Trainer
from omegaconf import DictConfig, OmegaConf, open_dict

from mm import checkpoint
from mm.applying import count_faults, trained_rows
from mm.assembly import finish
from mm.assembly.construct import build, escape
from mm.assembly.fitting import gather
from mm.assembly.provenance import Provenance
from mm.assembly.run import seed_everything
from mm.assembly.trainer import build_trainer
from mm.callbacks.progress import Progress
from mm.checkpoint import TrainedModel
from mm.data.module import DataModule
from mm.evaluation import RobustnessReport
from mm.messages import say
from mm.quiet import silence_lightning
from mm.reports import Report, Table
from mm.runs.prediction_files import check_format
from mm.runs.results import save_results
from mm.types import TargetData

logger = logging.getLogger("mm")
TARGETS = ("target", "targets")  # keys of datamodule.columns


@dataclass(repr=False)
class TestReport(Report):
    """Metrics of a model on the rows of a data set, whose files are written.

    Attributes:
        metrics: Name to number.
        heads: Names of the model's heads.
        files: Kind of each file to its path.
        summary: The number of rows that were measured, and of those with an error.
        robustness: The report of corrupted inputs, where they were measured.
    """

    __test__ = False  # no test of pytest
    metrics: Mapping[str, float]
    heads: Sequence[str] = ()
    files: Mapping[str, Path] = field(default_factory=dict)
    summary: str = ""
    robustness: RobustnessReport | None = None

    def table(self) -> Table:
        """Return a row for each metric."""
        return Table(["metric", "value"], list(self.metrics.items()))


def load_model(cfg: DictConfig, provenance: Provenance) -> TrainedModel:
    """Load the model directory that a config names.

    Raises:
        ValueError: If a key is set that the directory decides, or there is no such directory.
    """
    silence_lightning()
    seed_everything(cfg.seed)
    for named in provenance.named:
        if named.key.startswith("datamodule.transforms"):
            raise ValueError(f"{named.by}: a trained model brings its own transforms, from its directory; leave it out")
    return checkpoint.load(cfg.checkpoint, list(cfg.allow))


def build_model_data(
    cfg: DictConfig,
    model: TrainedModel,
    provenance: Provenance,
    labelled: bool,
    only: Sequence[str] | None = None,
    drawn: bool = False,
    anew: bool = False,
) -> DataModule:
    """Build the data of a config as a trained model reads it.

    Args:
        cfg: The config. The model's column map is filled in where none is given.
        model: The model.
        provenance: Which keys were set.
        labelled: Whether targets are read.
        only: The targets to read, also those that the model does not know; None: those that it does.
        drawn: Whether validation and test rows are drawn, as for training, where the data names none.
        anew: Whether classes are those of the training rows, as if no head had learnt any.

    Raises:
        ValueError: If the data lacks a target, or has no input of the model.
    """
    known = model.spec.targets if labelled and not anew else {}
    targets: dict[str, TargetData | None] = dict(known) if only is None else {name: known.get(name) for name in only}
    if model.columns is not None and "columns" in cfg.datamodule:
        with open_dict(cfg):
            given = OmegaConf.to_container(cfg.datamodule.columns)
            cfg.datamodule.columns = merge_columns(escape(model.columns), given, labelled, drawn)
    if drawn:
        set_now = {named.key for named in provenance.named}
        for key, value in model.split.items():
            if key != "rows" and not {"datamodule.split", f"datamodule.split.{key}"} & set_now:
                cfg.datamodule.split[key] = escape(value)
    data = finish.build_data(
        cfg, codecs=False, readers={} if anew else model.target_codecs, known=targets, trained=True, whole=not drawn
    )
    for name in [n for n in data.table.targets if n not in targets]:
        del data.table.targets[name]
    check_model_data(data, model, list(targets))
    data.use(model.transforms)
    return data


def check_model_data(data: DataModule, model: TrainedModel, targets: Sequence[str]) -> None:
    """Check that data has the inputs of a model and some targets; log which inputs it lacks.

    Raises:
        ValueError: If it lacks a target, has no input of the model, or has one of another modality.
    """
    inputs = data.spec.inputs
    lacking = [name for name in targets if name not in data.targets]
    if lacking:
        raise ValueError(
            f"{data.source}: no column for the target '{lacking[0]}'; set datamodule.columns, or use mm predict"
        )
    if not set(model.transforms) & set(inputs):
        raise ValueError(f"{data.source}: has {', '.join(inputs)}, but the model reads {', '.join(model.transforms)}")
    for name, about in inputs.items():
        if name in model.transforms and about.modality != model.spec.inputs[name].modality:
            raise ValueError(
                f"{data.source}: the input '{name}' is {about.modality}, but the model reads "
                f"{model.spec.inputs[name].modality} there; leave it out with datamodule.inputs"
            )
    for name in model.transforms:
        if name not in inputs:
            say(f"{data.source}: has no input '{name}': it is absent in every row")


def warn_of_trained_rows(model: TrainedModel, data: DataModule, split: str) -> None:
    """Log the number of measured rows that the model was trained on, if there are any."""
    count, first = trained_rows(model, data, split)
    if count:
        say(
            f"{data.source}: {count} of the {len(data.rows(split))} measured rows were trained on, "
            f"the first: {first}; their figures say nothing of new data"
        )


def merge_columns(saved: Mapping[str, Any], given: Any, labelled: bool, drawn: bool = False) -> dict[str, Any]:
    """Return the column map of a trained model, under the columns that are given.

    Args:
        saved: The column map of the model. Its columns of split and group are not used for another file.
        given: The columns of the config.
        labelled: Whether targets are read.
        drawn: Whether this is the file that the model was trained on, or one like it.

    Raises:
        ValueError: If a target is named though none is read.
    """
    other = () if drawn else ("split", "group")
    usual = {k: v for k, v in saved.items() if k not in other and (labelled or k not in TARGETS)}
    set_now = {k: v for k, v in given.items() if v is not None}
    if not labelled:
        for name in TARGETS:
            if name in set_now:
                raise ValueError(
                    f"datamodule.columns.{name}: mm predict reads no targets; leave it out, or use mm evaluate"
                )
        set_now |= dict.fromkeys(TARGETS)
    return dict.fromkeys(given) | usual | set_now


def run_test(
    cfg: DictConfig, model: TrainedModel, data: DataModule, split: str, folder: Path, **more: Any
) -> tuple[Any, Trainer]:
    """Pass every row of a split through a model.

    Args:
        cfg: The config, with the task and the trainer.
        model: The model.
        data: Its data.
        split: The split, or "all".
        folder: The run folder.
        **more: Further arguments of the task.

    Returns:
        The task, which holds the results, and the trainer.
    """
    task = build(cfg, "task", _partial_=True)(model=model.model, **more)
    trainer = build_trainer(cfg, [Progress()], False, folder)
    test_split(trainer, task, data, split)
    return task, trainer


def test_split(trainer: Trainer, task: Any, data: DataModule, split: str) -> None:
    """Pass every row of a split through a task."""
    data.test_dataloader = lambda: data.loader(split)
    trainer.test(task, datamodule=data, verbose=False)


test_split.__test__ = False  # type: ignore[attr-defined]  # no test of pytest


def note_unread_rows(task: Any, data: DataModule, rows: Sequence[int]) -> None:
    """Record as faults the rows that have no prediction, though nothing was wrong with them."""
    known = {*task.decoded, *(row for row, _ in data.faults)}
    for row in rows if len(task.model.heads) else ():
        if row not in known:
            data.faults[row, "inputs"] = "the row has no input that the model reads"


def write_test(
    trainer: Trainer,
    task: Any,
    data: DataModule,
    rows: list[int],
    folder: Path,
    provenance: Provenance,
    truth: bool,
    format: str = "parquet",
) -> TestReport | None:
    """Gather the results of all processes, and write metrics, predictions, errors and figures.

    Args:
        trainer: The trainer.
        task: The task, which has tested.
        data: Its data.
        rows: The rows whose predictions are written.
        folder: The run folder.
        provenance: How the run was started.
        truth: Whether targets are written beside predictions.
        format: Of the predictions: "parquet" or "csv".

    Returns:
        The report; None in other processes than the first one.
    """
    gather(trainer, task, data)
    if not trainer.is_global_zero:
        return None
    provenance.save(folder)
    note_unread_rows(task, data, rows)
    results: Mapping[str, float] = task.results | count_faults(data) | {"data/rows": len(rows)}
    every = truth and bool((data.splits == "test").all())
    hint = "; the data names no split: all are measured, also those that a model may have been trained on"
    summary = f"{data.source}: {len(rows)} rows, {results['data/faulty_rows']} of them with an error"
    files = save_results(folder, results, task, data, rows, truth, format=format)
    return TestReport(results, list(task.model.heads), files, f"{summary}{hint if every else ''}")


def predict_config(cfg: DictConfig, folder: Path, provenance: Provenance) -> TestReport | None:
    """Predict every row of a config's data, and write the predictions.

    Args:
        cfg: The config of `mm predict`.
        folder: The run folder.
        provenance: How the run was started.

    Returns:
        The report; None in other processes than the first one.

    Raises:
        ValueError: If the model has no head, or a setting is wrong.
    """
    check_format(cfg.format)
    model = load_model(cfg, provenance)
    if not len(model.model.heads):
        raise ValueError("this model predicts nothing: it has no head; use mm evaluate")
    data = build_model_data(cfg, model, provenance, labelled=False)
    task, trainer = run_test(cfg, model, data, "all", folder)
    # Rows that were left out while the table was read are in no split, but have their line too.
    rows = list(range(len(data.ids)))
    return write_test(trainer, task, data, rows, folder, provenance, truth=False, format=cfg.format)
