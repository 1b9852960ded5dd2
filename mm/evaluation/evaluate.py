"""Evaluation of the heads of a trained model on any data."""

import logging
import tempfile
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mm.applying import count_faults, describe_trained_rows, is_training_data, match_data, measure_silently, open_model
from mm.checkpoint import TrainedModel, build_metrics
from mm.configurable import to_config
from mm.data_source import DataSource, DrawsSplits
from mm.messages import plain
from mm.quiet import preserved_state
from mm.reports import Report, Table
from mm.tasks.supervised import Supervised

log = logging.getLogger("mm")


@dataclass(repr=False)
class EvaluationReport(Report):
    """Metrics of a trained model on some rows.

    Attributes:
        metrics: Metric name to value: `test/METRIC`, with several heads `test/HEAD/METRIC`, and `test[INPUTS]/METRIC`
            if only these inputs are given to the model.
        rows: Number of evaluated rows.
        note: A sentence about evaluated rows on which the model was trained; "" if there are none.
    """

    metrics: Mapping[str, float]
    rows: int
    note: str = ""

    def table(self) -> Table:
        """Return one row for each subset of inputs, and one column for each metric without a class in its name.

        The note, if there is one, stands above it. The column `rows` has the number of labelled rows with one of these
        inputs.
        """
        sections = list(dict.fromkeys(name.split("/")[0] for name in self.metrics if name.startswith("test")))
        names = list(dict.fromkeys(name.partition("/")[2] for name in self.metrics if name.startswith("test/")))
        shown = [name for name in names if "/" not in name] or names
        rows = [
            [section.removeprefix("test").strip("[]") or "all", *(self.metrics.get(f"{section}/{n}") for n in shown)]
            for section in sections
        ]
        return Table(["inputs", *shown], rows, self.note)


def evaluate(
    model: TrainedModel | str | Path,
    data: DataSource,
    *,
    split: str = "test",
    subsets: str | Sequence[str | Sequence[str]] = "auto",
    accelerator: str = "auto",
    allow: Sequence[str] = (),
) -> EvaluationReport:
    """Evaluate a trained model on data, with all of its inputs and with subsets of them.

    Args:
        model: The model, or the path of its directory. It is not changed.
        data: Data with inputs and targets of the model. It is not changed.
        split: The split to evaluate: "train", "val", "test", or "all". If no column of the data states the splits, all
            rows are test rows, as in `mm evaluate`, except for the data on which the model was trained: its test rows
            are those that the training held out.
        subsets: The subsets of inputs, as in `task.modality_subsets.test` of `mm train`: "auto", "all", "single",
            "none" or a list.
        accelerator: As in `lightning.Trainer`.
        allow: Names of further packages whose metrics the model directory may use.

    Returns:
        The report. If the model was trained on some of the rows, its note and a warning of the logger `mm` say so.

    Raises:
        ValueError: If the model has no head, if the data lacks a target of the model, or if the split is empty.

    Example:
        >>> report = mm.evaluate("outputs/first/model", data)  # doctest: +SKIP
        >>> print(report.table())  # doctest: +SKIP
    """
    trained = open_model(model, allow)
    if not len(trained.model.heads):
        raise ValueError(f"{trained.path or 'model'}: this model has no head to measure; see mm.probe")
    if isinstance(data, DrawsSplits) and not is_training_data(trained, data):
        data = data.without_drawn_split(trained.spec, trained.target_codecs)
    bound: Any = copy(match_data(trained, data, labelled=True))
    rows = len(bound.rows(split))
    note = describe_trained_rows(trained, bound, split)
    if note:
        log.warning(plain(note))
    configs = {head: to_config(group) for head, group in trained.metrics.items()}
    metrics = {head: build_metrics(node, list(allow)) for head, node in configs.items()}
    was_training = trained.model.training
    with preserved_state(), tempfile.TemporaryDirectory() as folder:
        task = Supervised(model=trained.model, metrics=metrics, modality_subsets={"test": subsets})
        measure_silently(task, bound, split, accelerator, Path(folder))
    trained.model.train(was_training)
    return EvaluationReport({**task.results, **count_faults(bound)}, rows, note)
