"""Files of a run: metrics.json and the directions of its metrics, predictions, errors.csv and pictures."""

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
    """Write metrics.json first, then predictions of some rows, errors and pictures.

    Args:
        folder: The run folder.
        results: Name of each metric to its number.
        task: What has measured: its pictures, predictions and the directions of its metrics.
        data: Where the rows are from.
        rows: Numbers of the rows whose predictions are written; none for no file.
        truth: Whether targets are written beside the predictions.
        directions: Of metrics, where they are others than the task's.
        format: Of the predictions: "parquet" or "csv".

    Returns:
        The kind of each file, such as `predictions`, to its path.
    """
    saved = {"metrics": write_metrics(folder, results, dict(task.directions()) | dict(directions or {}))}
    if rows:
        saved["predictions"] = folder / f"predictions.{format}"
        write_predictions(saved["predictions"], data, rows, task.decoded, truth)
    if data.faults:
        saved["errors"] = folder / "errors.csv"
        data.write_errors(saved["errors"])
    return saved | {path.stem: path for path in write_figures(folder, task.figures)}
