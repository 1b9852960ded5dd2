"""Report of the baselines of a data set."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from mm.files import write_json
from mm.reports import Report, Table

SPLITS = ("val", "test")
NOT_SHOWN = ("precision_macro", "recall_macro", "calibration_error")  # in metrics, but not in the table


def is_shown(name: str) -> bool:
    """Return whether a metric is a column of the table."""
    return name not in NOT_SHOWN and not name.endswith(("_micro", "_weighted"))


@dataclass(frozen=True)
class BaselineResult:
    """The metrics of one classical model for one target.

    Attributes:
        target: Name of the target.
        name: What the model reads: "constant" (nothing), the name of an input, or "all".
        model: Description of the model.
        metrics: Split to metric name to value, with the number of measured rows as `rows`.
    """

    target: str
    name: str
    model: str
    metrics: Mapping[str, Mapping[str, float]]


@dataclass(frozen=True, repr=False)
class BaselineReport(Report):
    """Metrics of classical models, as measured by `mm.baseline`.

    Attributes:
        results: The models, for each target the constant first.
        targets: Names of the targets that were asked for; of several, metrics bear the name.
        primary: Target name to the metric by which its models are compared, and whether higher is better.
        notes: Sentences on targets without a baseline, samples, and rows that could not be read.
        seconds: Duration of reading and fitting.
    """

    results: Sequence[BaselineResult]
    targets: Sequence[str]
    primary: Mapping[str, tuple[str, bool]] = field(default_factory=dict)
    notes: Sequence[str] = ()
    seconds: float = 0.0

    @property
    def metrics(self) -> Mapping[str, float]:  # type: ignore[override]
        """Return names such as `baseline/test[audio]/accuracy` to values; `baseline/test[all]` reads all inputs."""
        several = len(self.targets) > 1
        flat: dict[str, float] = {}
        for result in self.results:
            for split, values in result.metrics.items():
                place = f"baseline/{split}[{result.name}]/{f'{result.target}/' if several else ''}"
                flat |= {f"{place}{name}": value for name, value in values.items()}
        return flat | {"baseline/duration_s": round(self.seconds, 3)}

    def best(self, target: str, split: str = "val") -> tuple[BaselineResult, float] | None:
        """Return the best model of a target and its value of the primary metric; None if none was measured.

        Args:
            target: Name of the target.
            split: "val" or "test".
        """
        metric, higher = self.primary.get(target, ("", True))
        measured = [
            (result, result.metrics[split][metric])
            for result in self.results
            if result.target == target and metric in result.metrics.get(split, {})
        ]
        return max(measured, key=lambda pair: pair[1] if higher else -pair[1], default=None)

    def table(self) -> Table:
        """Return a row per model with its metrics on validation and test rows."""
        targets = list(dict.fromkeys(result.target for result in self.results))
        names: list[tuple[str, str]] = []
        for split in SPLITS:
            for result in self.results:
                shown = [(split, name) for name in result.metrics.get(split, {}) if is_shown(name)]
                names += [pair for pair in shown if pair not in names]
        rows = [
            [
                *([result.target] if len(targets) > 1 else []),
                result.name,
                result.model,
                *(result.metrics.get(split, {}).get(name) for split, name in names),
            ]
            for result in self.results
        ]
        columns = [*(["target"] if len(targets) > 1 else []), "baseline", "model"]
        return Table([*columns, *(f"{split}/{name}" for split, name in names)], rows)

    def save(self, folder: str | Path) -> Path:
        """Write metrics.json, and baseline.json with the description of every model, into a folder."""
        folder = super().save(folder)
        self.write(folder / "baseline.json")
        return folder

    def write(self, path: Path) -> None:
        """Write the models, their metrics and the notes into a JSON file."""
        results = [asdict(result) for result in self.results]
        write_json(path, {"results": results, "notes": list(self.notes), "seconds": round(self.seconds, 3)})
