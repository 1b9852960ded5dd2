"""Files of a run: metrics.json and the directions of its metrics, predictions.parquet, errors.csv and pictures."""

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from mm.arrow import whole_column
from mm.files import shown, whole, write_json
from mm.messages import plain
from mm.runs.directions import DIRECTIONS, known_direction

if TYPE_CHECKING:
    import pyarrow
    from matplotlib.figure import Figure

logger = logging.getLogger("mm")


class MeasuredData(Protocol):
    """What is written of the rows of a data set."""

    @property
    def table(self) -> Any:
        """Return all rows."""
        ...

    @property
    def faults(self) -> Mapping[tuple[int, str], str]:
        """Return (row, column) -> what is wrong."""
        ...

    def truth(self, name: str, row: int) -> Any:
        """Return a row's true target, as a person reads it."""
        ...

    def write_errors(self, path: Path) -> None:
        """Write a CSV of the rows that could not be read."""
        ...


class DecodedRows(Protocol):
    """Predictions, as `mm.tasks.answers.Answers` holds them."""

    def tables(self, rows: Sequence[int]) -> Iterator[tuple[int, "pyarrow.Table"]]:
        """Yield the number of rows of each block, and the block."""
        ...


class MeasuringTask(Protocol):
    """What is written of a task that has measured."""

    decoded: Any
    figures: Any

    def directions(self) -> Mapping[str, bool | None]:
        """Return for each metric whether higher is better."""
        ...


def write_metrics(folder: Path, results: Mapping[str, Any], directions: Mapping[str, bool | None]) -> Path:
    """Write a run's numbers, and beside them whether a higher value of each is better, which `mm compare` reads.

    Args:
        folder: The run folder.
        results: Name -> number, which become metrics.json.
        directions: Name -> whether higher is better, None for neither; other names are looked up.

    Returns:
        The path of metrics.json. Whoever finds it finds metrics.directions.json, too.
    """
    found = {name: directions.get(name, known_direction(name)) for name in results}
    write_json(folder / DIRECTIONS, {name: higher for name, higher in found.items() if higher is not None})
    path = folder / "metrics.json"
    write_json(path, results)
    return path


def write_figures(folder: Path, figures: Mapping[str, "Figure | Callable[[], Figure]"]) -> list[Path]:
    """Write pictures, such as test/report to test_report.png. One that can't be drawn is left out, with a warning.

    Args:
        folder: The run folder.
        figures: Name to matplotlib's Figure, or to a function that draws one.

    Returns:
        The files.
    """
    paths = []
    for name, figure in figures.items():
        path = folder / f"{name.replace('/', '_')}.png"
        try:
            with warnings.catch_warnings(), whole(path) as part:
                warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)  # drawn as an empty box
                drawn = figure() if callable(figure) else figure
                drawn.savefig(part, dpi=120, format="png")
        except Exception as error:  # of matplotlib: no number may be lost by it
            cause = next(iter(str(error).splitlines()), "")
            logger.warning(plain(f"{shown(path)} could not be drawn: {type(error).__name__}: {cause}"))
            continue
        paths.append(path)
    return paths


def write_predictions(path: Path, data: MeasuredData, rows: Sequence[int], answers: DecodedRows, truth: bool) -> None:
    """Write predictions.parquet, a block of rows at a time.

    Its columns: id, row, error where there was one; per head prediction, probabilities, and, last, truth.

    Args:
        path: The file.
        data: Where the rows are from, and what was wrong with them.
        rows: Their numbers, in the order of the file.
        answers: What was predicted for them, by all processes.
        truth: Whether targets are written as well.
    """
    import pyarrow
    import pyarrow.parquet

    errors: dict[int, list[str]] = {}
    for (row, column), message in data.faults.items():
        errors.setdefault(row, []).append(f"{column}: {message}")
    about = {
        "id": whole_column(rows, data.table.ids.__getitem__),
        "row": whole_column(rows, int),
        "error": whole_column(rows, lambda row: "; ".join(errors[row]) if row in errors else None),
    }
    true = {
        f"{name}/truth": whole_column(rows, partial(data.truth, name)) for name in (data.table.targets if truth else ())
    }
    with ExitStack() as stack:
        part, writer, begin = stack.enter_context(whole(path)), None, 0
        for size, block in answers.tables(rows):
            columns = {name: x.slice(begin, size) for name, x in about.items()}
            columns |= dict(zip(block.column_names, block.columns))
            columns |= {name: x.slice(begin, size) for name, x in true.items()}
            table = pyarrow.table(columns)
            if writer is None:
                writer = stack.enter_context(pyarrow.parquet.ParquetWriter(part, table.schema))
            writer.write_table(table)
            begin += size


def save_results(
    folder: Path,
    results: Mapping[str, Any],
    task: MeasuringTask,
    data: MeasuredData,
    rows: Sequence[int],
    truth: bool,
    directions: Mapping[str, bool | None] | None = None,
) -> dict[str, Path]:
    """Write metrics.json first, then predictions of some rows, errors and pictures.

    Args:
        folder: The run folder.
        results: Name of each metric to its number.
        task: What has measured: its pictures, predictions and the directions of its metrics.
        data: Where the rows are from.
        rows: Numbers of the rows whose predictions are written; none for no file.
        truth: Whether targets are written beside the predictions.
        directions: Of metrics, where they are others than the task's.

    Returns:
        The kind of each file, such as `predictions`, to its path.
    """
    saved = {"metrics": write_metrics(folder, results, dict(task.directions()) | dict(directions or {}))}
    if rows:
        saved["predictions"] = folder / "predictions.parquet"
        write_predictions(saved["predictions"], data, rows, task.decoded, truth)
    if data.faults:
        saved["errors"] = folder / "errors.csv"
        data.write_errors(saved["errors"])
    return saved | {path.stem: path for path in write_figures(folder, task.figures)}
