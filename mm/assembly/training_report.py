"""Report of a training run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mm.baselines import BaselineReport
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
        baseline: The classical models that were fitted on the same rows; None if there are none.
        notes: Sentences on the baseline: a model that does not beat it, or why there is none.
        commands: Command lines to suggest to the user; empty after a training from Python.
    """

    model: TrainedModel
    metrics: Mapping[str, float]
    folder: Path | None = None
    files: Mapping[str, Path] = field(default_factory=dict)
    interrupted: bool = False
    commands: Sequence[str] = ()
    baseline: BaselineReport | None = None
    notes: Sequence[str] = ()

    def table(self) -> Table:
        """Return a table with one row per metric, without the metrics of subsets of the inputs.

        The metrics of baselines on test rows come last.
        """
        rows = [(n, value) for n, value in self.metrics.items() if "[" not in n or n.startswith("baseline/test[")]
        return Table(["metric", "value"], rows)

    def save(self, folder: str | Path) -> Path:
        """Write metrics.json and the model directory, `model`, into a folder."""
        folder = super().save(folder)
        self.model.save(folder / "model")
        return folder
