"""The report of a training."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mm.checkpoint import TrainedModel
from mm.reports import Report, Table


@dataclass(repr=False)
class TrainingReport(Report):
    """Results of a training.

    Attributes:
        model: The trained model, with the weights of the best validation, in evaluation mode.
        metrics: Name to value: the best monitored value, the test metrics, epochs, steps and seconds.
        folder: The run folder, None where the run has no name.
        files: Kind of each file of the run folder, such as `predictions`, to its path.
        interrupted: Whether Ctrl-C ended the training; the weights are the last ones then, and nothing was tested.
        commands: What one may want to type next; nothing after a training from Python.
    """

    model: TrainedModel
    metrics: Mapping[str, float]
    folder: Path | None = None
    files: Mapping[str, Path] = field(default_factory=dict)
    interrupted: bool = False
    commands: Sequence[str] = ()

    def table(self) -> Table:
        """Return one row for each metric of the whole model; metrics of subsets of inputs are in `.metrics`."""
        return Table(["metric", "value"], [(name, value) for name, value in self.metrics.items() if "[" not in name])

    def save(self, folder: str | Path) -> Path:
        """Write metrics.json and the model directory, `model`, into a folder."""
        folder = super().save(folder)
        self.model.save(folder / "model")
        return folder
