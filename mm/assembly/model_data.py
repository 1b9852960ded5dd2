"""A trained model and the data that it is applied to, built from the config of `mm evaluate` or `mm predict`."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lightning import Trainer
from omegaconf import DictConfig, OmegaConf, open_dict

from mm import checkpoint
from mm.applying import count_faults, describe_trained_rows
from mm.assembly import finish
from mm.assembly.construct import build, escape
from mm.assembly.detection import add_box_figures
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
    """Metrics of a trained model on the rows of a data set.

    Attributes:
        metrics: Metric name to value.
        heads: Names of the model's heads.
        files: Kind of each written file to its path.
        summary: A sentence with the number of evaluated rows and the number of rows with an error.
        robustness: Report on the corrupted inputs; None if `cfg.robustness` is not set.
    """

    __test__ = False  # no test of pytest
    metrics: Mapping[str, float]
    heads: Sequence[str] = ()
    files: Mapping[str, Path] = field(default_factory=dict)
    summary: str = ""
    robustness: RobustnessReport | None = None

    def table(self) -> Table:
        """Return a table with one row per metric."""
        return Table(["metric", "value"], list(self.metrics.items()))


def load_model(cfg: DictConfig, provenance: Provenance) -> TrainedModel:
    """Load the model directory that `cfg.checkpoint` names, and seed all random number generators.

    Raises:
        ValueError: If a transform is set, because the directory contains the transforms, or if it is not a model
            directory.
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
    """Build the data module of a config with the transforms, classes and column map of a trained model.

    Args:
        cfg: The config. Columns that it does not set are filled in from the column map of the model.
        model: The trained model.
        provenance: The command and the keys that it sets.
        labelled: Whether to read targets.
        only: Names of the targets to read, which the model need not know; None: all targets of the model.
        drawn: Whether the rows are split as in the training of the model if the data has no split column; otherwise all
            rows are test rows.
        anew: Whether the classes of targets are those of the training rows instead of the model's.

    Raises:
        ValueError: If the data lacks a target, or has none of the model's inputs.
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
        cfg, codecs=False, readers={} if anew else model.target_codecs, known=targets, trained=True, draw_split=drawn
    )
    for name in [n for n in data.table.targets if n not in targets]:
        del data.table.targets[name]
    check_model_data(data, model, list(targets))
    data.use(model.transforms)
    return data


def check_model_data(data: DataModule, model: TrainedModel, targets: Sequence[str]) -> None:
    """Check that data fits a model, and print which inputs of the model it lacks.

    Args:
        data: The data.
        model: The trained model.
        targets: Names of the targets that are needed.

    Raises:
        ValueError: If the data lacks a target, has none of the model's inputs, or has an input of another modality.
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
    """Print the number of rows of a split on which the model was trained, if there are any."""
    note = describe_trained_rows(model, data, split)
    if note:
        say(note)


def merge_columns(saved: Mapping[str, Any], given: Any, labelled: bool, drawn: bool = False) -> dict[str, Any]:
    """Return the column map of a trained model, updated with the columns of a config.

    Args:
        saved: Column map of the model.
        given: Columns of the config; None: not set.
        labelled: Whether to read targets.
        drawn: Whether the columns `split` and `group` of the model apply, because the file is the one that the model
            was trained on, or has the same columns.

    Raises:
        ValueError: If a target column is set although no targets are read.
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
    """Run a model on every row of a split.

    Args:
        cfg: The config, with the task and the Trainer.
        model: The trained model.
        data: The data.
        split: Name of the split, or "all".
        folder: The run folder.
        **more: Further arguments of the task.

    Returns:
        The task, which contains the results, and the Trainer.
    """
    task = build(cfg, "task", _partial_=True)(model=model.model, **more)
    trainer = build_trainer(cfg, [Progress()], False, folder)
    test_split(trainer, task, data, split)
    return task, trainer


def test_split(trainer: Trainer, task: Any, data: DataModule, split: str) -> None:
    """Run a task on every row of a split."""
    data.test_dataloader = lambda: data.loader(split)
    trainer.test(task, datamodule=data, verbose=False)


test_split.__test__ = False  # type: ignore[attr-defined]  # no test of pytest


def note_unread_rows(task: Any, data: DataModule, rows: Sequence[int]) -> None:
    """Record a fault for each row that has no prediction and no other fault, because it has no input of the model."""
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
        trainer: The Trainer.
        task: The task, after the test.
        data: The data.
        rows: Indices of the rows whose predictions are written.
        folder: The run folder.
        provenance: The command and the keys that it sets.
        truth: Whether to write the true targets next to the predictions.
        format: File format of the predictions, "parquet" or "csv".

    Returns:
        The report in rank 0; None in other processes.
    """
    gather(trainer, task, data)
    if not trainer.is_global_zero:
        return None
    provenance.save(folder)
    note_unread_rows(task, data, rows)
    results: Mapping[str, float] = task.results | count_faults(data) | {"data/rows": len(rows)}
    every = truth and bool((data.splits == "test").all())
    hint = "; the data names no split: all are measured, also those that a model may have been trained on"
    if truth:
        add_box_figures(task, data, rows, results)
    summary = f"{data.source}: {len(rows)} rows, {results['data/faulty_rows']} of them with an error"
    files = save_results(folder, results, task, data, rows, truth, format=format)
    return TestReport(results, list(task.model.heads), files, f"{summary}{hint if every else ''}")


def predict_config(cfg: DictConfig, folder: Path, provenance: Provenance) -> TestReport | None:
    """Predict every row of a config's data, and write the predictions into the run folder.

    Args:
        cfg: The config of `mm predict`.
        folder: The run folder.
        provenance: The command and the keys that it sets.

    Returns:
        The report in rank 0; None in other processes.

    Raises:
        ValueError: If the model has no head, or if a setting is invalid.
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
