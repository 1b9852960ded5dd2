"""Figures and messages about heads that predict boxes, after a test."""

from collections.abc import Mapping, Sequence

from mm.data.module import DataModule
from mm.evaluation.box_grid import find_box_grids
from mm.evaluation.empty_predictions import describe_empty_predictions
from mm.messages import say
from mm.predictions import Calibration
from mm.tasks.base import Task


def add_box_figures(task: Task, data: DataModule, rows: Sequence[int], results: Mapping[str, float]) -> None:
    """Add a grid of test images to the figures of a task, and print whether the threshold leaves no box.

    Args:
        task: The task, after the test.
        data: The data.
        rows: Indices of the tested rows.
        results: Metric name to value.
    """
    calibration = task.model.calibration
    decodings = {
        name: calibration.get(name, Calibration()).apply_threshold(head.decoding)
        for name, head in task.model.heads.items()
    }
    task.figures |= find_box_grids(decodings, data, task.decoded, rows)
    kinds = {name: about.kind for name, about in data.spec.targets.items()}
    for sentence in describe_empty_predictions(decodings, kinds, task.decoded, rows, results):
        say(sentence)
