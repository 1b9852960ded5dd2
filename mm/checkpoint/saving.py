"""Writing of model directories: plain files that can be loaded without Lightning, Hydra or pickle."""

import json
import shutil
import sys
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml
from safetensors.torch import save_file, save_model
from torch import Tensor

from mm.checkpoint.classes import OPTIONAL
from mm.checkpoint.config import PlainLoader, read_config, to_plain, write_config
from mm.checkpoint.upgrade import FORMAT
from mm.configurable import to_config
from mm.files import discard, unused, whole
from mm.messages import markdown
from mm.model import MultimodalModel
from mm.predictions import Calibration
from mm.tokenizers import load_tokenizer
from mm.transforms.text.tokens import TextTransform
from mm.types import DataSpec, TargetCodec, Transform
from mm.untrusted import BUILT, check_sections, check_sources

ROWS = "rows.safetensors"  # digests of the rows of each split
CALIBRATION_LINE = "Calibration: "  # begins the line of the model card about the calibration


def save(
    path: str | Path,
    model: MultimodalModel,
    transforms: Mapping[str, Transform],
    targets: Mapping[str, TargetCodec],
    spec: DataSpec,
    metrics: Mapping[str, Mapping[str, Any]] | None = None,
    card: str = "",
    *,
    columns: Mapping[str, Any] | None = None,
    task: Mapping[str, Any] | None = None,
    split: Mapping[str, Any] | None = None,
    rows: Mapping[str, Tensor] | None = None,
    weights: bool = True,
) -> None:
    """Write a model directory; an existing directory of the same name is replaced.

    The files are first written to a temporary directory, which is then renamed.

    Args:
        path: The model directory.
        model: The model. Each of its parts must know its constructor arguments; see `mm.configurable`.
        transforms: Input name to the transform of its raw values.
        targets: Target name to the codec of its cells.
        spec: Inputs and targets of the data.
        metrics: Head name to its metrics by name: metric objects that know their constructor arguments, or their
            configs.
        card: Text of the model card, README.md.
        columns: Column names of the data, as in `datamodule.columns`.
        task: Settings of the training task that evaluation needs, such as those of retrieval, as plain data.
        split: Settings of the random split, if the data has no validation or test split of its own.
        rows: Digests of the rows of each split, as tensors.
        weights: Whether to write the weights. A directory without weights can't be loaded; see `try_save`.

    Raises:
        ValueError: If a part does not know its constructor arguments, or if one of these is not plain data.
    """
    config = {
        "format": FORMAT,
        "requires": {name: version(name) for name in ("mm", "torch", *needed_packages(model))},
        **describe(model, transforms, targets, spec, metrics),
        "columns": columns and to_config(columns, "columns"),
        "task": dict(task or {}),
        "split": dict(split or {}),
    }
    if model.calibration:
        config["calibration"] = {name: calibration_fields(x) for name, x in model.calibration.items()}
    labels = extract_labels(config)
    with whole(Path(path)) as part:
        part.mkdir(parents=True)
        save_tokenizers(part, config, transforms)
        write_config(part, config)
        (part / "labels.json").write_text(json.dumps(labels, ensure_ascii=False, indent=1), encoding="utf-8")
        (part / "README.md").write_text(card, encoding="utf-8")
        if rows:
            save_file(dict(rows), part / ROWS)
        if weights:
            save_model(model, str(part / "model.safetensors"))
        for file in part.glob("*.safetensors"):
            file.chmod(0o644)  # safetensors makes them readable for their owner only


def try_save(path: Path, *args: Any, **kwargs: Any) -> None:
    """Write a model directory without its weights and remove it again.

    A run calls this at its start, so that it does not fail at its end.

    Args:
        path: Path of the future model directory, next to which the temporary one is written.
        *args: Arguments of `save`.
        **kwargs: Keyword arguments of `save`.

    Raises:
        ValueError: If the config of a part can't be written, for example because an argument is not plain data.
    """
    part = unused(path)
    try:
        save(part, *args, **kwargs, weights=False)
        config = yaml.load((part / "config.yaml").read_text(encoding="utf-8"), PlainLoader)
        for name in (*BUILT, "spec"):
            check_sources(part, config[name], name)
        check_sections(config)
    except (TypeError, ValueError, yaml.YAMLError, AttributeError, KeyError) as error:
        reason = str(error).replace(f"{part}: ", "")
        raise ValueError(
            f"the model directory of this run could not be written and loaded again: {reason}; arguments of parts are "
            "plain data, and a part that is initialised from weights of others overrides get_config"
        ) from error
    finally:
        discard(part)


def describe(
    model: MultimodalModel,
    transforms: Mapping[str, Transform],
    targets: Mapping[str, TargetCodec],
    spec: DataSpec,
    metrics: Mapping[str, Mapping[str, Any]] | None = None,
) -> dict[str, Any]:
    """Return the sections of config.yaml with the configs of the model, transforms, target codecs, data and metrics.

    Args:
        model: The model.
        transforms: Input name to transform.
        targets: Target name to codec.
        spec: Inputs and targets of the data.
        metrics: Head name to its metrics by name, as in `save`.

    Raises:
        ValueError: If a part does not know its constructor arguments; the message names the part.
    """
    return {
        "model": to_config(model, "model"),
        "transforms": {name: to_config(part, f"transforms.{name}") for name, part in transforms.items()},
        "target_codecs": {name: to_config(part, f"target_codecs.{name}") for name, part in targets.items()},
        "spec": to_plain(asdict(spec)),
        "metrics": {head: to_config(group, f"metrics.{head}") for head, group in (metrics or {}).items()},
    }


def extract_labels(config: dict[str, Any]) -> dict[str, list[str]]:
    """Remove the class names from a config, in place, and return them.

    They are stored as JSON, which is 10 times faster to read than YAML if there are thousands of classes.

    Args:
        config: Sections of config.yaml, as `describe` returns them.

    Returns:
        Target name to class names, and `INPUT/COLUMN` to the categories of a tabular column.
    """
    spec = config["spec"]
    labels = {name: list(target.pop("classes")) for name, target in spec["targets"].items()}
    for name, data in spec["inputs"].items():
        labels |= {f"{name}/{column['name']}": column.pop("classes") for column in data["columns"] or ()}
    for head in config["model"]["heads"].values():
        if "classes" in head:
            head["classes"] = None
    for name, transform in config["transforms"].items():
        if spec["inputs"][name]["columns"] and "columns" in transform:
            transform["columns"] = None  # they are in the spec
    return labels


def save_tokenizers(part: Path, config: dict[str, Any], transforms: Mapping[str, Transform]) -> None:
    """Write the tokenizers of a model into its directory, and set their paths in the config to these copies.

    Args:
        part: The model directory.
        config: Sections of config.yaml, as `describe` returns them, changed in place.
        transforms: Input name to transform.
    """
    for name, transform in transforms.items():
        if isinstance(transform, TextTransform) and transform.tokenizer is not None:
            folder = f"tokenizer/{name}"
            transform.tokenizer.save_pretrained(part / folder)
            config["transforms"][name]["tokenizer"] = folder
            encoder = config["model"]["encoders"].get(name, {})
            if "tokenizer" in encoder:
                encoder["tokenizer"] = folder
    for name, target in config["spec"]["targets"].items():
        source = target["facts"].get("tokenizer")
        if source is not None:
            folder = f"labels/{name}"
            load_tokenizer(source).save_pretrained(part / folder)
            for node in (config["model"]["heads"][name], config["target_codecs"][name], target["facts"]):
                node["tokenizer"] = folder


def calibration_fields(calibration: Calibration) -> dict[str, Any]:
    """Return the fields of a calibration for config.yaml; a threshold is one of them only if it was chosen."""
    fields = asdict(calibration)
    return fields if calibration.threshold is not None else {k: v for k, v in fields.items() if k != "threshold"}


def save_calibration(path: Path, calibration: Mapping[str, Calibration], summary: str) -> None:
    """Write the calibration of a model into its directory; an existing calibration is replaced.

    Args:
        path: The model directory, which is replaced by a changed copy.
        calibration: Head name to calibration.
        summary: Sentence about the calibration for README.md.
    """
    with whole(path) as part:
        shutil.copytree(path, part)
        config = read_config(part)
        write_config(part, config | {"calibration": {name: calibration_fields(x) for name, x in calibration.items()}})
        card = (part / "README.md").read_text(encoding="utf-8").splitlines()
        rest = "\n".join(line for line in card if not line.startswith(CALIBRATION_LINE)).rstrip()
        (part / "README.md").write_text(f"{rest}\n\n{CALIBRATION_LINE}{markdown(summary)}\n", encoding="utf-8")


def needed_packages(model: MultimodalModel) -> list[str]:
    """Return the optional packages that define classes of the model or are imported by the modules of these classes."""
    files = [sys.modules[type(module).__module__] for module in model.modules()]
    used = {file.__name__.split(".")[0] for file in files}
    used |= {str(value.__module__).split(".")[0] for file in files for value in vars(file).values() if callable(value)}
    return [name for name in OPTIONAL if name in used]
