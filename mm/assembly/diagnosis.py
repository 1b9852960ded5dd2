"""Diagnosis of a run: its batches with a loss or gradient that is not finite, and the influence of each input."""

import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf, open_dict
from torch import Tensor, nn

from mm import checkpoint
from mm.assembly import finish
from mm.assembly.adapters import attach_adapters
from mm.assembly.construct import build, escape, read_resolved
from mm.assembly.distillation import load_teachers
from mm.assembly.former_configs import upgrade_run_config
from mm.callbacks.periodic_checkpoint import newest_first, usable
from mm.checkpoint import check_classes
from mm.data.module import DataModule
from mm.explain.influence import Influence, dead, influence
from mm.files import shown
from mm.quiet import silence_lightning
from mm.reports import Report, Table
from mm.tasks.base import Task
from mm.tasks.nonfinite import first_nonfinite, unpack
from mm.tasks.pretraining import Pretraining
from mm.tasks.supervised import Supervised
from mm.tensors import pick

# Sections of a run's config that are built, and the packages that each may name beside those of model directories.
BUILT = {
    "datamodule": ["mm.datamodules"],
    "model": [],
    "peft": ["peft"],
    "task": ["mm.tasks", "mm.losses", "mm.metrics", "torch.optim", "timm.optim"],
}


@dataclass(frozen=True)
class NonfiniteBatch:
    """A batch of a run whose loss or gradient was not finite, and the result of its replay.

    Attributes:
        file: Name of the file of the batch.
        quantity: The quantity that was not finite, "the loss" or "the gradient".
        rows: Number of rows in the batch.
        module: The first module whose output is not finite; None or "" if all outputs are finite in the replay.
        faulty: Names of the rows for which an output is not finite if they are computed alone.
        reason: Why the batch can't be replayed; "" if it was replayed.
    """

    file: str
    quantity: str = ""
    rows: int = 0
    module: str | None = None
    faulty: tuple[str, ...] = ()
    reason: str = ""


@dataclass(frozen=True, repr=False)
class DiagnosisReport(Report):
    """Batches of a run whose loss or gradient was not finite, and the influence of each input on the predictions.

    Attributes:
        batches: The batches that were not finite.
        influences: Input name to its influence on the predictions; empty if it could not be computed.
        source: Checkpoint or model directory with the weights for which it was computed; None if there are no weights.
        reason: Why no influence was computed; "" if it was.
    """

    batches: Sequence[NonfiniteBatch]
    influences: Mapping[str, Influence] = field(default_factory=dict)
    source: Path | None = None
    reason: str = ""

    @property
    def dead(self) -> dict[str, str]:
        """Return the inputs with nearly no influence on the predictions, each with the reason."""
        return dead(dict(self.influences))

    @property
    def metrics(self) -> dict[str, float]:  # type: ignore[override]
        """Return the metrics `nonfinite_batches`, and `influence/INPUT/...` for each input."""
        found: dict[str, float] = {"nonfinite_batches": len(self.batches)}
        for name, one in self.influences.items():
            found |= {f"influence/{name}/{key}": value for key, value in one._asdict().items()}
        return found

    def table(self) -> Table:
        """Return a table with one row per input: its fraction of the gradient, and the changes without this input."""
        columns = ["input", "rows", "part of the gradient", "predictions change without it", "loss rises without it"]
        rows = [
            (name, str(one.rows), f"{one.gradient:.1%}", f"{one.change:.1%}", f"{one.loss:+.4f}")
            for name, one in self.influences.items()
        ]
        return Table(columns, rows)


def diagnose(run: str | Path, *, rows: int = 256, allow: Sequence[str] = ()) -> DiagnosisReport:
    """Diagnose a run: replay its batches that were not finite, and compute the influence of each input.

    The influence is computed for the weights of the newest checkpoint, or of the model directory if there is no usable
    checkpoint file.

    Args:
        run: The run folder, such as `outputs/first`.
        rows: Number of training rows for which the influence is computed.
        allow: Names of further packages whose classes the config of the run may use.

    Returns:
        The report.

    Raises:
        ValueError: If the folder contains no run, if its config uses classes of other packages, or if a file is
            damaged.

    Example:
        >>> report = mm.diagnose("outputs/first")  # doctest: +SKIP
        >>> report.dead  # doctest: +SKIP
    """
    folder = Path(run)
    if not (folder / "config.yaml").is_file():
        raise ValueError(f"there is no run in {folder}: it has no config.yaml")
    if not isinstance(rows, int) or rows < 1:
        raise ValueError(f"rows: got {rows}, wanted a whole number from 1")
    data, task = rebuild_run(folder, allow)
    batches = [replay_batch(path, data, task) for path in sorted((folder / "nonfinite").glob("*.pt"))]
    return weigh_inputs(folder, data, task.model, rows, batches)


def rebuild_run(folder: Path, allow: Sequence[str]) -> tuple[DataModule, Any]:
    """Build the data and the task of a run, including its model, from the config in its folder.

    Args:
        folder: The run folder.
        allow: Names of further packages whose classes the config may use.

    Raises:
        ValueError: If the config uses classes of packages that are not allowed, or if a model directory of a teacher
            does not exist.
    """
    silence_lightning()
    config = upgrade_run_config(read_resolved(folder / "config.yaml"))
    for part, packages in BUILT.items():
        check_classes(without_metrics(config.get(part)) if part == "model" else config.get(part), [*allow, *packages])
    cfg: Any = OmegaConf.create(escape(config))
    data = finish.build_data(cfg)
    data.use({name: build(cfg, f"datamodule.transforms.{name}") for name in cfg.datamodule.transforms})
    model = finish.build_model(cfg)
    with open_dict(cfg):
        cfg.resume = True  # weights are loaded into the adapters, not those that they started from
        cfg.allow = list(allow)
    attach_adapters(cfg, model)
    make = build(cfg, "task", _partial_=True)
    parts: dict[str, Any] = {"metrics": {name: {} for name in model.heads}} if make.func is Supervised else {}
    for name, path in ((cfg.task.get("distillation") or {}).get("teachers") or {}).items():
        if not Path(path).is_dir():  # nothing is downloaded because a run folder says so
            raise ValueError(f"task.distillation.teachers.{name}: there is no model directory at {path}; put it there")
    task = make(model=model, **parts, **load_teachers(cfg, data.transforms))
    if isinstance(task, Pretraining):
        task.prepare(data.transforms)
    return data, task


def without_metrics(model: Any) -> Any:
    """Return the config of a model without the metrics of its heads, which are not needed for a diagnosis."""
    heads = model.get("heads") if isinstance(model, dict) else None
    if not isinstance(heads, dict):
        return model
    return {
        **model,
        "heads": {name: {k: v for k, v in head.items() if k != "metrics"} for name, head in heads.items() if head},
    }


def read_tensors(path: Path) -> dict[str, Any]:
    """Load a file of tensors and plain data, on the CPU.

    Raises:
        ValueError: If the file is damaged, or contains objects that could run code.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
        line = next(iter(str(error).splitlines()), type(error).__name__)
        raise ValueError(f"{path}: is damaged, or not of mm: {line}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path}: got a {type(content).__name__}, wanted what a run keeps")
    return content


def load_weights_of(path: Path, model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Load the weights that were read from a file into a model.

    Args:
        path: Path of the file, for the message.
        model: The model, changed in place.
        weights: Name to weight.

    Raises:
        ValueError: If they are the weights of another model.
    """
    try:
        model.load_state_dict(weights)
    except (RuntimeError, TypeError) as error:
        line = " ".join(str(error).split())
        raise ValueError(f"{path}: holds weights of another model: {line:.300}") from None


def replay_batch(path: Path, data: DataModule, task: Task) -> NonfiniteBatch:
    """Replay a saved batch whose loss or gradient was not finite, and find the module and the rows that cause it.

    Args:
        path: File of the batch, which also contains the weights of that step.
        data: Data of the run, for the names of rows.
        task: Task of the run; its model gets the saved weights.
    """
    content = read_tensors(path)
    if content["weights"] is None:
        reason = "was kept by one of several processes that shared the weights out, and can't be replayed"
        return NonfiniteBatch(path.name, reason=reason)
    load_weights_of(path, task.model, content["weights"])
    batch = unpack(content["batch"])
    task.train()
    module = first_nonfinite(task.model, lambda: task.replay(batch))
    faulty = []
    for i, row in enumerate(batch.row.tolist()):
        one = pick(batch, slice(i, i + 1))
        if row >= 0 and first_nonfinite(task.model, lambda one=one: task.replay(one)):
            faulty.append(data.row_name(row))
    return NonfiniteBatch(path.name, content["what"], len(batch.row), module, tuple(faulty))


def weigh_inputs(
    folder: Path, data: DataModule, model: Any, count: int, batches: Sequence[NonfiniteBatch]
) -> DiagnosisReport:
    """Compute the influence of each input on the predictions, with the newest weights of a run.

    Args:
        folder: The run folder.
        data: Data of the run.
        model: Model of the run, into which the weights are loaded.
        count: Maximum number of training rows, which are evenly spaced.
        batches: The replayed batches, which are passed on to the report.
    """
    if not len(model.heads):
        reason = "the model predicts nothing, so what its inputs are worth to it can't be said"
        return DiagnosisReport(batches, reason=reason)
    path = next((p for p in newest_first(folder / "checkpoints") if p.is_file() and usable(p)), None)
    if path is not None:
        saved = read_tensors(path)["state_dict"]
        weights = {name.removeprefix("model."): x for name, x in saved.items() if name.startswith("model.")}
    elif (folder / "model").is_dir():  # a sharded run's checkpoints are folders, which only its processes read
        path, weights = folder / "model", checkpoint.weights(folder / "model")
    else:
        reason = f"{shown(folder)} holds no checkpoint: what its inputs are worth can't be said"
        return DiagnosisReport(batches, reason=reason)
    load_weights_of(path, model, weights)
    rows = data.rows("train")
    chosen = rows[:: max(1, len(rows) // count)][:count].tolist()
    return DiagnosisReport(batches, influence(model, data.batch(chosen)), path)
