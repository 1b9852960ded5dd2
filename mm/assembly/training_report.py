"""Report of a training run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mm.checkpoint import TrainedModel
from mm.reports import Report, Table


@dataclass(repr=False)
class TrainingReport(Report):
    """Results of a training run.

    Attributes:
        model: The trained model, with the weights of the best validation, in evaluation mode.
        metrics: Metric name to value: the best monitored value, the test metrics, epochs, steps and the duration in
            seconds.
        folder: The run folder; None if the run has no name.
        files: Kind of each file in the run folder, such as `predictions`, to its path.
        interrupted: Whether Ctrl-C ended the training. Then the model has its last weights, and was not tested.
        commands: Command lines to suggest to the user; empty after a training from Python.
    """

    model: TrainedModel
    metrics: Mapping[str, float]
    folder: Path | None = None
    files: Mapping[str, Path] = field(default_factory=dict)
    interrupted: bool = False
    commands: Sequence[str] = ()

    def table(self) -> Table:
        """Return a table with one row per metric, without the metrics of subsets of the inputs."""
        return Table(["metric", "value"], [(name, value) for name, value in self.metrics.items() if "[" not in name])

    def save(self, folder: str | Path) -> Path:
        """Write metrics.json and the model directory, `model`, into a folder."""
        folder = super().save(folder)
        self.model.save(folder / "model")
        return folder
