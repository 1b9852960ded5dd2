"""Load a model directory, which is a stranger's file until it is checked."""

import warnings
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from importlib.metadata import PackageNotFoundError, version
from math import prod
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, load_model
from torch import Tensor

from mm._compat.torch import TorchDispatchMode
from mm.checkpoint.classes import OPTIONAL, build, check_targets
from mm.checkpoint.config import MESSAGE_LENGTH, read_config
from mm.checkpoint.hub import fetch
from mm.checkpoint.saving import ROWS
from mm.checkpoint.trained_model import TrainedModel
from mm.types import Calibration, ColumnData, DataSpec, InputData, Judged, TargetData
from mm.untrusted import (
    BUILT,
    anchor_tokenizers,
    check_links,
    check_sections,
    check_sources,
    installed_packages_only,
    read_labels,
)

# What building a model may allocate: a multiple of its weights' size, and room for tables that are not saved.
ROOM = 4, 1 << 30
FACTORIES = ("empty", "zeros", "ones", "full", "rand", "randn", "empty_strided", "new_empty", "new_zeros")
TENSORS = 20, 5000  # so many for each that is saved, and some more


def load(path: str | Path, allow: Sequence[str] = (), device: str | torch.device = "cpu") -> TrainedModel:
    """A model directory (or wandb:entity/project/name:version) -> a model that predicts, in evaluation mode.

    allow: further packages whose classes may be built. Errors: ValueError where the directory is none, or names a class
    of a package that is not allowed, or a function.
    """
    path = fetch(path)
    config = read_config(path)
    torch.empty(0, device=device)  # a device that is not there is no fault of the directory
    try:
        check_config(path, config, allow)
        with nullcontext() if allow else installed_packages_only():
            return rebuild(path, config, allow, device)
    except Exception as error:  # the files say what no mm writes
        raise damaged(path, error) from error


def check_config(path: Path, config: dict[str, Any], allow: Sequence[str]) -> None:
    """Check a model directory without building or importing anything that it names.

    Raises:
        ValueError: If it is not as mm writes it, or names a class of a package that is not allowed.
    """
    check_requirements(path, config["requires"])
    for part in BUILT:
        check_targets(config.get(part), [*allow, "torchmetrics"] if part == "metrics" else allow)
    for part in (*BUILT, "spec"):
        check_sources(path, config.get(part), part)
    check_sections(config)
    check_links(path)


def damaged(path: Path, error: Exception) -> ValueError:
    """The one error of a directory that can't be loaded; its message names the directory."""
    if isinstance(error, FileNotFoundError) and error.filename:
        return ValueError(f"{path}: lacks {error.filename}; copy the whole directory")
    told = " ".join(str(error).split())
    told = told if len(told) <= MESSAGE_LENGTH else f"{told[:MESSAGE_LENGTH]} ..."
    if not isinstance(error, ValueError):
        return ValueError(f"{path}: is damaged, or no mm has written it: {type(error).__name__}: {told}")
    return ValueError(told if str(path) in told else f"{path}: {told}")


def check_requirements(path: Path, requires: Any) -> None:
    """Check that the packages that a model needs are installed, without importing any.

    Raises:
        ValueError: If one is not, or is none of those that models of mm need.
    """
    known = ("mm", "torch", *OPTIONAL)
    if not isinstance(requires, dict) or not set(requires) <= set(known):
        raise ValueError(f"{path}: requires: got {requires!r:.200}, wanted versions of some of {', '.join(known)}")
    lacking = [name for name in requires if name != "mm" and not installed(name)]
    if lacking:
        raise ValueError(f"{path}: needs {', '.join(lacking)}; pip install {' '.join(lacking)}")


def installed(package: str) -> bool:
    """Whether a package is installed, by its metadata alone."""
    try:
        version(package)
    except PackageNotFoundError:
        return False
    return True


def rebuild(path: Path, config: dict[str, Any], allow: Sequence[str], device: str | torch.device) -> TrainedModel:
    """The model of a directory whose config was checked."""
    labels = read_labels(path / "labels.json")
    for name, head in config["model"]["heads"].items():
        if "classes" in head:
            head["classes"] = labels[name]
    for part in (*BUILT, "spec"):
        anchor_tokenizers(path, config.get(part))
    inputs = {name: input_data(name, data, labels) for name, data in config["spec"]["inputs"].items()}
    for name, node in config["transforms"].items():
        if "columns" in node and node["columns"] is None:
            node["columns"] = list(inputs[name].columns or ())
    with Bounded(path):
        model = build(config["model"], allow)
    load_model(model, str(path / "model.safetensors"), device=str(device))
    known: dict[str, Any] = config.get("calibration", {})  # of models that mm calibrate has seen
    model.calibration = {name: Calibration(**tuples(fitted)) for name, fitted in known.items()}
    for name, fitted in [*model.calibration.items()]:
        if isinstance(model.heads[name], Judged) and not fitted.exact:
            warnings.warn(
                f"{path}: the calibration of '{name}' is of an older version, which rounded the confidence of long "
                "texts to zero; it is left out: run mm calibrate again",
                stacklevel=2,
            )
            del model.calibration[name]
    transforms = {name: build(node, allow) for name, node in config["transforms"].items()}
    target_codecs = {name: build(node, allow) for name, node in config["target_codecs"].items()}
    spec = DataSpec(
        inputs=inputs,
        targets={n: TargetData(**d, classes=tuple(labels[n])) for n, d in config["spec"]["targets"].items()},
    )
    card = path / "README.md"
    return TrainedModel(
        model.to(device).eval(),
        transforms,
        target_codecs,
        spec,
        metrics=config.get("metrics") or {},
        columns=config.get("columns"),
        task=config.get("task") or {},
        split=config.get("split") or {},
        rows=read_tensors(path / ROWS) if (path / ROWS).is_file() else {},
        card=card.read_text(encoding="utf-8", errors="replace") if card.is_file() else "",
        path=path,
    )


class Bounded(TorchDispatchMode):
    """Refuse to allocate far more than the weights of a model directory need, before the memory is taken.

    Args:
        path: The directory.

    Raises:
        ValueError: Before an operation that would exceed the bound.
    """

    def __init__(self, path: Path):
        super().__init__()
        self.path = path
        file = path / "model.safetensors"
        with safe_open(file, "pt") as weights:
            self.tensors = TENSORS[0] * len(weights.keys()) + TENSORS[1]
        self.bytes = ROOM[0] * file.stat().st_size + ROOM[1]

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """torch would import its compiler for it, which takes seconds."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__
        if name in FACTORIES and str(kwargs.get("device") or "cpu") != "meta":
            self.count(args[0] if isinstance(args[0], list | tuple) else [], kwargs.get("dtype"))
        elif name in ("clone", "_to_copy", "empty_like"):
            self.count(args[0].shape, args[0].dtype)
        return func(*args, **kwargs)

    def count(self, shape: Sequence[int], dtype: torch.dtype | None) -> None:
        """Take one tensor into account."""
        self.bytes -= prod(shape) * (dtype or torch.get_default_dtype()).itemsize
        self.tensors -= 1
        if self.bytes < 0 or self.tensors < 0:
            size = f"a tensor of {' x '.join(map(str, shape))}" if self.bytes < 0 else "so many layers"
            raise ValueError(f"{self.path}: the config describes {size}, far more than its weights; it is damaged")


def weights(path: str | Path) -> dict[str, Tensor]:
    """Of a model directory (or wandb:entity/project/name:version), by name. Errors: ValueError where it is none."""
    path = fetch(path)
    read_config(path)
    return read_tensors(path / "model.safetensors")


def read_tensors(file: Path) -> dict[str, Tensor]:
    """Read a file of safetensors. Raise ValueError where it is none, or damaged."""
    try:
        return load_file(file)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{file}: is damaged: {error}; copy it again") from None


def input_data(name: str, data: dict[str, Any], labels: Mapping[str, Sequence[str]]) -> InputData:
    """Of an input, as the directory has it."""
    columns = [ColumnData(**c, classes=tuple(labels[f"{name}/{c['name']}"])) for c in data.get("columns") or ()]
    return InputData(**{**tuples(data), "columns": tuple(columns) or None})


def tuples(data: dict[str, Any]) -> dict[str, Any]:
    """Lists become tuples, as in the frozen types."""
    return {key: tuple(value) if isinstance(value, list) else value for key, value in data.items()}
