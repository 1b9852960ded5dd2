"""Loading of a model directory, whose files are treated as untrusted until they are checked."""

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
from mm.predictions import Calibration
from mm.types import ColumnData, DataSpec, InputData, TargetData
from mm.untrusted import (
    BUILT,
    anchor_tokenizers,
    check_links,
    check_sections,
    check_sources,
    installed_packages_only,
    read_labels,
)

# Memory that building a model may allocate: a multiple of the size of its weights, and bytes for unsaved buffers.
ROOM = 4, 1 << 30
FACTORIES = ("empty", "zeros", "ones", "full", "rand", "randn", "empty_strided", "new_empty", "new_zeros")
TENSORS = 20, 5000  # maximum number of new tensors: a multiple of the saved ones, and a constant


def load(path: str | Path, allow: Sequence[str] = (), device: str | torch.device = "cpu") -> TrainedModel:
    """Load a trained model from a model directory, in evaluation mode.

    Args:
        path: Path of the model directory, or `wandb:entity/project/name:version` for a Weights & Biases artifact.
        allow: Names of further packages whose classes may be built.
        device: Device of the model.

    Raises:
        ValueError: If the path is not a model directory, if the directory is damaged, or if it names a function or a
            class of a package that is not allowed.
    """
    path = fetch(path)
    config = read_config(path)
    torch.empty(0, device=device)  # raises the error of an unavailable device here, not as a damaged directory
    try:
        check_config(path, config, allow)
        with nullcontext() if allow else installed_packages_only():
            return rebuild(path, config, allow, device)
    except Exception as error:  # the files are not as mm writes them
        raise damaged(path, error) from error


def check_config(path: Path, config: dict[str, Any], allow: Sequence[str]) -> None:
    """Check a model directory without importing or building any class that it names.

    Args:
        path: The model directory.
        config: Its config, as `read_config` returns it.
        allow: Names of further packages whose classes may be built.

    Raises:
        ValueError: If the directory does not have the form in which `mm` writes it, or if it names a class of a package
            that is not allowed.
    """
    check_requirements(path, config["requires"])
    for part in BUILT:
        check_targets(config.get(part), [*allow, "torchmetrics"] if part == "metrics" else allow)
    for part in (*BUILT, "spec"):
        check_sources(path, config.get(part), part)
    check_sections(config)
    check_links(path)


def damaged(path: Path, error: Exception) -> ValueError:
    """Return the error to raise for a directory that can't be loaded; its message names the directory.

    Args:
        path: The model directory.
        error: The original error.
    """
    if isinstance(error, FileNotFoundError) and error.filename:
        return ValueError(f"{path}: lacks {error.filename}; copy the whole directory")
    told = " ".join(str(error).split())
    told = told if len(told) <= MESSAGE_LENGTH else f"{told[:MESSAGE_LENGTH]} ..."
    if not isinstance(error, ValueError):
        return ValueError(f"{path}: is damaged, or no mm has written it: {type(error).__name__}: {told}")
    return ValueError(told if str(path) in told else f"{path}: {told}")


def check_requirements(path: Path, requires: Any) -> None:
    """Check that the packages that a model needs are installed, without importing them.

    Args:
        path: The model directory, for messages.
        requires: Section `requires` of the config: package name to version.

    Raises:
        ValueError: If a package is not installed, or is not one of the packages that models of `mm` may need.
    """
    known = ("mm", "torch", *OPTIONAL)
    if not isinstance(requires, dict) or not set(requires) <= set(known):
        raise ValueError(f"{path}: requires: got {requires!r:.200}, wanted versions of some of {', '.join(known)}")
    lacking = [name for name in requires if name != "mm" and not installed(name)]
    if lacking:
        raise ValueError(f"{path}: needs {', '.join(lacking)}; pip install {' '.join(lacking)}")


def installed(package: str) -> bool:
    """Return whether a package is installed, without importing it."""
    try:
        version(package)
    except PackageNotFoundError:
        return False
    return True


def rebuild(path: Path, config: dict[str, Any], allow: Sequence[str], device: str | torch.device) -> TrainedModel:
    """Build the trained model from a model directory whose config was checked.

    Args:
        path: The model directory.
        config: Its config, as `read_config` returns it.
        allow: Names of further packages whose classes may be built.
        device: Device of the model.
    """
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
    known: dict[str, Any] = config.get("calibration", {})  # of models that were calibrated with mm calibrate
    model.calibration = {name: Calibration(**tuples(fitted)) for name, fitted in known.items()}
    for name, fitted in [*model.calibration.items()]:
        if fitted.bias and not fitted.exact:
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
    """Context manager that limits the memory which may be allocated while a model is built.

    The limit is a multiple of the size of the saved weights. An operation that would exceed it raises an error before
    its memory is allocated.

    Args:
        path: The model directory.

    Raises:
        ValueError: If an operation would exceed the limit of bytes or of tensors.
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
        """Return False, because torch would otherwise import its compiler for this mode, which takes seconds."""
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
        """Subtract a tensor from the remaining limits.

        Args:
            shape: Shape of the tensor.
            dtype: Type of the tensor; None: the default type of torch.

        Raises:
            ValueError: If a limit is exceeded.
        """
        self.bytes -= prod(shape) * (dtype or torch.get_default_dtype()).itemsize
        self.tensors -= 1
        if self.bytes < 0 or self.tensors < 0:
            size = f"a tensor of {' x '.join(map(str, shape))}" if self.bytes < 0 else "so many layers"
            raise ValueError(f"{self.path}: the config describes {size}, far more than its weights; it is damaged")


def weights(path: str | Path) -> dict[str, Tensor]:
    """Return the weights of a model directory by name.

    Args:
        path: Path of the model directory, or `wandb:entity/project/name:version` for a Weights & Biases artifact.

    Raises:
        ValueError: If the path is not a model directory, or if its weights are damaged.
    """
    path = fetch(path)
    read_config(path)
    return read_tensors(path / "model.safetensors")


def read_tensors(file: Path) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file by name.

    Raises:
        ValueError: If the file is missing or damaged.
    """
    try:
        return load_file(file)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{file}: is damaged: {error}; copy it again") from None


def input_data(name: str, data: dict[str, Any], labels: Mapping[str, Sequence[str]]) -> InputData:
    """Return the properties of an input from its entry in a config.

    Args:
        name: Name of the input.
        data: Entry of the input in the section `spec`.
        labels: Contents of labels.json, with the categories of tabular columns as `INPUT/COLUMN`.
    """
    columns = [ColumnData(**c, classes=tuple(labels[f"{name}/{c['name']}"])) for c in data.get("columns") or ()]
    return InputData(**{**tuples(data), "columns": tuple(columns) or None})


def tuples(data: dict[str, Any]) -> dict[str, Any]:
    """Convert the lists of a mapping to tuples, as frozen dataclasses need them."""
    return {key: tuple(value) if isinstance(value, list) else value for key, value in data.items()}
