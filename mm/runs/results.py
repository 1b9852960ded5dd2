"""Result files of a run: metrics.json with the directions of its metrics, predictions, errors.csv and figures."""

import logging
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from mm.files import shown, whole, write_json
from mm.messages import plain
from mm.runs.directions import DIRECTIONS, known_direction
from mm.runs.prediction_files import MeasuredData, write_predictions

if TYPE_CHECKING:
    from matplotlib.figure import Figure

logger = logging.getLogger("mm")


class MeasuringTask(Protocol):
    """The attributes of a task that its result files need after an evaluation."""

    decoded: Any
    figures: Any

    def directions(self) -> Mapping[str, bool | None]:
        """Return for each metric whether higher is better."""
        ...


def write_metrics(folder: Path, results: Mapping[str, Any], directions: Mapping[str, bool | None]) -> Path:
    """Write metrics.json, and a file that records for `mm compare` whether a higher value of each metric is better.

    Args:
        folder: The run folder.
        results: Metric name to value.
        directions: Metric name to whether higher is better; None if neither is better. Other metrics are looked up by
            name.

    Returns:
        The path of metrics.json, which is written last, so that its presence implies that of metrics.directions.json.
    """
    found = {name: directions.get(name, known_direction(name)) for name in results}
    write_json(folder / DIRECTIONS, {name: higher for name, higher in found.items() if higher is not None})
    path = folder / "metrics.json"
    write_json(path, results)
    return path


def write_figures(folder: Path, figures: Mapping[str, "Figure | Callable[[], Figure]"]) -> list[Path]:
    """Write figures as PNG files, for example test/report as test_report.png.

    A figure that can't be drawn is left out, with a warning.

    Args:
        folder: The run folder.
        figures: Name to a matplotlib Figure, or to a function that draws one.

    Returns:
        The paths of the files.
    """
    paths = []
    for name, figure in figures.items():
        path = folder / f"{name.replace('/', '_')}.png"
        try:
            with warnings.catch_warnings(), whole(path) as part:
                warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)  # drawn as empty boxes
                drawn = figure() if callable(figure) else figure
                drawn.savefig(part, dpi=120, format="png")
        except Exception as error:  # an error of matplotlib must not prevent saving the results
            cause = next(iter(str(error).splitlines()), "")
            logger.warning(plain(f"{shown(path)} could not be drawn: {type(error).__name__}: {cause}"))
            continue
        paths.append(path)
    return paths


def save_results(
    folder: Path,
    results: Mapping[str, Any],
    task: MeasuringTask,
    data: MeasuredData,
    rows: Sequence[int],
    truth: bool,
    directions: Mapping[str, bool | None] | None = None,
    format: str = "parquet",
) -> dict[str, Path]:
    """Write metrics.json first, then the predictions of some rows, errors.csv and the figures.

    Args:
        folder: The run folder.
        results: Metric name to value.
        task: The task that was evaluated, with its figures, predictions and the directions of its metrics.
        data: The data of the rows.
        rows: Indices of the rows whose predictions are written; if empty, no file is written.
        truth: Whether to write the true targets next to the predictions.
        directions: Metric name to whether higher is better, for metrics that the task does not know.
        format: File format of the predictions, "parquet" or "csv".

    Returns:
        Kind of each file, such as `predictions`, to its path.
    """
    saved = {"metrics": write_metrics(folder, results, dict(task.directions()) | dict(directions or {}))}
    if rows:
        saved["predictions"] = folder / f"predictions.{format}"
        write_predictions(saved["predictions"], data, rows, task.decoded, truth)
    if data.faults:
        saved["errors"] = folder / "errors.csv"
        data.write_errors(saved["errors"])
    return saved | {path.stem: path for path in write_figures(folder, task.figures)}
