"""Prediction of the rows of a table with a trained model, from Python."""

import tempfile
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mm.applying import count_faults, match_data, measure_silently, open_model
from mm.assembly.model_data import merge_columns, note_unread_rows
from mm.checkpoint import TrainedModel
from mm.data.module import DataModule
from mm.data.readers.in_memory import is_table
from mm.datamodules.manifest import ManifestDataModule
from mm.quiet import preserved_state
from mm.reports import Report, Table
from mm.runs.prediction_files import check_format, write_predictions, write_table
from mm.tasks.supervised import Supervised

if TYPE_CHECKING:
    import pyarrow

LONGEST = 20  # rows of the table that a report prints


@dataclass(repr=False)
class PredictionReport(Report):
    """Predictions of a trained model.

    Attributes:
        metrics: The number of rows, and the number of rows that could not be read.
        predictions: A pyarrow table with the columns `id`, `row` and `error`, and for each head its prediction and its
            probabilities.
        format: File format that `save` uses, "parquet" or "csv".
    """

    metrics: Mapping[str, float]
    predictions: "pyarrow.Table" = field(compare=False)
    format: str = "parquet"

    def table(self) -> Table:
        """Return a table with the ID, the prediction of each head and the error of the first rows."""
        names = [name for name in self.predictions.column_names if name.endswith("/prediction")]
        chosen = self.predictions.select(["id", *names, "error"]).slice(0, LONGEST)
        more = self.predictions.num_rows - chosen.num_rows
        title = f"the first {LONGEST} of {self.predictions.num_rows} rows" if more else ""
        columns = ["id", *(name.removesuffix("/prediction") for name in names), "error"]
        return Table(columns, [tuple(row.values()) for row in chosen.to_pylist()], title)

    def save(self, folder: str | Path, format: str | None = None) -> Path:
        """Write metrics.json and the predictions into a folder, in the same form as `mm predict`.

        Args:
            folder: The folder, which is created.
            format: "parquet" or "csv", for predictions.parquet or predictions.csv; default: the format of the report.

        Returns:
            The folder.

        Raises:
            ValueError: If the format is unknown.
        """
        format = format or self.format
        check_format(format)
        folder = super().save(folder)
        write_table(folder / f"predictions.{format}", self.predictions)
        return folder


def predict(
    model: TrainedModel | str | Path,
    data: Any,
    *,
    columns: Mapping[str, Any] | None = None,
    split: str = "all",
    accelerator: str = "auto",
    batch_size: int = 64,
    num_workers: int = 2,
    allow: Sequence[str] = (),
    format: str = "parquet",
) -> PredictionReport:
    """Predict every row of a table with a trained model.

    A row that can't be read has no prediction, and the reason is in the column `error`.

    Args:
        model: The model, or the path of its directory. It is not changed.
        data: The path of a table, a table in memory, or a data module. Its columns have the same names as in training.
        columns: Role to column, such as {"text": "body"}, for columns with another name than in training.
        split: The split to predict: "train", "val", "test", or "all".
        accelerator: As in `lightning.Trainer`.
        batch_size: Number of rows per batch, if the data is not a data module.
        num_workers: Number of worker processes that read rows, if the data is not a data module.
        allow: Names of further packages whose classes the model directory may use.
        format: File format of `save` of the report, "parquet" or "csv".

    Returns:
        The report; its `predictions` are a pyarrow table.

    Raises:
        ValueError: If the model has no head, or if the data has none of its inputs.

    Example:
        >>> report = mm.predict("outputs/first/model", "new.csv")  # doctest: +SKIP
        >>> report.save("predicted")  # doctest: +SKIP
    """
    check_format(format)
    trained = open_model(model, allow)
    if not len(trained.model.heads):
        raise ValueError("this model predicts nothing: it has no head; use mm.evaluate")
    if not isinstance(data, DataModule):
        data = read_new_rows(trained, data, columns or {}, batch_size=batch_size, num_workers=num_workers)
    bound: Any = copy(match_data(trained, data, labelled=False))
    rows = list(range(len(bound.ids))) if split == "all" else bound.rows(split).tolist()
    was_training = trained.model.training
    with preserved_state(), tempfile.TemporaryDirectory() as name:
        task = Supervised(model=trained.model, metrics={})
        measure_silently(task, bound, split, accelerator, Path(name))
        note_unread_rows(task, bound, rows)
        predictions = read_predictions(Path(name), task, bound, rows)
    trained.model.train(was_training)
    return PredictionReport({**count_faults(bound), "data/rows": len(rows)}, predictions, format)


def read_new_rows(model: TrainedModel, table: Any, columns: Mapping[str, Any], **settings: Any) -> ManifestDataModule:
    """Return a data module for a table of new rows, with the column map of a trained model and without targets.

    Args:
        model: The trained model.
        table: The path of a table, or a table in memory.
        columns: Role to column, for columns with another name than in training.
        **settings: Further arguments of the data module.

    Raises:
        ValueError: If `table` is neither a path nor a table.
    """
    if not isinstance(table, str | Path) and not is_table(table):
        raise ValueError(f"data: got a {type(table).__name__}, wanted a path, a table in memory or a data module")
    given = dict.fromkeys(model.columns or ()) | dict(columns)
    merged = merge_columns(model.columns or {}, given, labelled=False)
    return ManifestDataModule(table, merged, on_error="drop", trained=True, draw_split=False, **settings)


def read_predictions(folder: Path, task: Any, data: DataModule, rows: Sequence[int]) -> "pyarrow.Table":
    """Return the predictions of some rows as a pyarrow table with the same columns as predictions.parquet."""
    import pyarrow.parquet

    file = folder / "predictions.parquet"
    write_predictions(file, data, rows, task.decoded, truth=False)
    return pyarrow.parquet.read_table(file, memory_map=False)
