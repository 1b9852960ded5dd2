"""Checks of model directories from untrusted sources: their configs, and the access of the built model."""

import json
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mm.annotations import check_fields, fits
from mm.predictions import Calibration
from mm.types import ColumnData, InputData, TargetData

# Arguments that name weights, of our parts, of transformers, of timm and of torchmetrics.
SOURCES = (
    "pretrained",
    "init_from",
    "checkpoint_path",
    "model_name_or_path",
    "pretrained_cfg",
    "pretrained_cfg_overlay",
    "pretrained_model_name_or_path",
    "use_pretrained_backbone",
)
# Arguments that name a model or code for attention by a word, or, with a slash or a colon, by a place on a hub.
HUB_NAMES = ("backbone", "architecture")
SECTIONS: dict[str, tuple[type, ...]] = {  # of config.yaml -> their types
    "requires": (dict,),
    "model": (dict,),
    "transforms": (dict,),
    "target_codecs": (dict,),
    "spec": (dict,),
    "columns": (dict, type(None)),
    "metrics": (dict,),
    "task": (dict,),
    "split": (dict,),
    "calibration": (dict,),
}
# Sections whose `_target_` are classes; the others have none, but for the metric of retrieval in `task`.
BUILT = ("model", "transforms", "target_codecs", "metrics", "task")


def check_sections(config: Mapping[str, Any]) -> None:
    """Check the types of the sections of a model directory's config, and the names in them.

    Args:
        config: Content of config.yaml, as plain data.

    Raises:
        ValueError: If a section has the wrong type, if a name is not an identifier, or if a section of plain data names
            a class.
    """
    for name, types in SECTIONS.items():
        if name in config and not isinstance(config[name], types):
            raise ValueError(f"config.yaml: {name}: got {config[name]!r:.80}, wanted a mapping")
        if name not in BUILT:
            check_plain(config.get(name), name)
    for key, value in (config.get("task") or {}).items():
        if key != "retrieval":
            check_plain(value, f"task.{key}")
    for key in ("label", "group"):
        if not isinstance((config.get("task") or {}).get(key), str | None):
            raise ValueError(f"config.yaml: task.{key}: got {config['task'][key]!r:.80}, wanted a name")
    named = {name: config.get(name) for name in ("transforms", "target_codecs", "metrics", "calibration")}
    named |= {f"model.{name}": config["model"].get(name) for name in ("encoders", "heads")}
    named |= {f"spec.{name}": config["spec"].get(name) for name in ("inputs", "targets")}
    for where, found in named.items():
        if not isinstance(found or {}, dict):
            raise ValueError(f"config.yaml: {where}: got {found!r:.80}, wanted a mapping")
        for name, part in (found or {}).items():
            if not isinstance(name, str) or not name.isidentifier():
                raise ValueError(f"config.yaml: {where}: got the name {name!r:.80}, wanted a plain word")
            if not isinstance(part, dict):
                raise ValueError(f"config.yaml: {where}.{name}: got {part!r:.80}, wanted a mapping")
    for name, fitted in (config.get("calibration") or {}).items():
        check_fields(Calibration, fitted, f"config.yaml: calibration.{name}")
    for name, target in (config["spec"].get("targets") or {}).items():
        check_fields(TargetData, target, f"config.yaml: spec.targets.{name}")
    for name, data in (config["spec"].get("inputs") or {}).items():
        where = f"config.yaml: spec.inputs.{name}"
        check_fields(InputData, {key: value for key, value in data.items() if key != "columns"}, where)
        if not fits(data.get("columns"), list[dict] | None):
            raise ValueError(f"{where}.columns: got {data['columns']!r:.80}, wanted a list of mappings")
        for column in data.get("columns") or ():
            check_fields(ColumnData, column, f"{where}.columns")
    for name, part in (config.get("metrics") or {}).items():
        for metric in part:
            if not isinstance(metric, str) or not re.fullmatch(r"[\w@.\- ]+", metric):  # it becomes a file's name
                raise ValueError(f"config.yaml: metrics.{name}: got the name {metric!r:.80}, wanted a plain word")
    check_objects(config)


def check_objects(config: Mapping[str, Any]) -> None:
    """Check that the parts of a model are configs of objects, and that its fusion reads existing inputs only.

    Raises:
        ValueError: If a part is not a config of an object, or if the fusion reads an unknown input.
    """
    model, inputs = config["model"], config["spec"].get("inputs") or {}
    parts = {"model": model, "model.fusion": model.get("fusion")}
    for where, found in (("transforms", config["transforms"]), ("target_codecs", config.get("target_codecs"))):
        parts |= {f"{where}.{name}": part for name, part in (found or {}).items()}
    for group in ("encoders", "heads"):
        parts |= {f"model.{group}.{name}": part for name, part in (model.get(group) or {}).items()}
    for where, part in parts.items():
        if not isinstance(part, dict) or "_target_" not in part:
            raise ValueError(f"config.yaml: {where}: got {part!r:.80}, wanted a mapping with a _target_")
    read = model["fusion"].get("inputs")
    for names in read.values() if isinstance(read, dict) else [read]:
        if isinstance(names, list) and not all(isinstance(name, str) and name in inputs for name in names):
            raise ValueError(f"config.yaml: model.fusion.inputs: got {names!r:.80}, wanted some of {', '.join(inputs)}")


def check_plain(node: Any, where: str) -> None:
    """Check that a part of a config is plain data, because a `_target_` in it would be built later.

    Args:
        node: The part.
        where: Config key of the part, for the error message.

    Raises:
        ValueError: If the part names a class.
    """
    for key, child in children(node):
        if key == "_target_":
            raise ValueError(f"config.yaml: {where} names a class, {child!r:.80}; it can only hold plain data")
        check_plain(child, f"{where}.{key}")


def children(node: Any) -> Iterator[tuple[Any, Any]]:
    """Iterate over the keys and values of a mapping or a list."""
    yield from node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()


def check_sources(path: Path, node: Any, where: str) -> None:
    """Check that the config of a model directory names no weights, tokenizers or code outside of the directory.

    Args:
        path: The model directory.
        node: A part of its config.
        where: Config key of the part, for the error message.

    Raises:
        ValueError: If it names one.
    """
    for key, value in children(node):
        place = f"{where}.{key}"
        if key in SOURCES and value:
            raise ValueError(f"{path}: {place} names other weights, {value!r:.80}; its own are here")
        by_hub = key in HUB_NAMES or str(key).endswith("_implementation")
        if by_hub and isinstance(value, str) and re.search("[/:]", value):
            raise ValueError(f"{path}: {place} names something outside of this directory, {value!r:.80}")
        if key == "tokenizer" and value not in (None, "bytes") and not is_inside(path, value):
            raise ValueError(f"{path}: {place}: got {value!r:.80}, wanted a folder of this directory, or bytes")
        check_sources(path, value, place)


def is_inside(path: Path, name: Any) -> bool:
    """Return whether a name is that of a folder in a directory, after resolving links."""
    if not isinstance(name, str) or "\0" in name:
        return False
    try:
        return (path / name).is_dir() and (path / name).resolve().is_relative_to(path.resolve())
    except OSError:  # the name is too long for any folder
        return False


def anchor_tokenizers(path: Path, node: Any) -> None:
    """Make the tokenizer paths of a config absolute, in place; elsewhere relative paths would be hub names.

    Args:
        path: The model directory; `check_sources` has checked that the tokenizers lie in it.
        node: A part of its config.
    """
    for key, value in children(node):
        if key == "tokenizer" and isinstance(value, str) and value != "bytes":
            node[key] = str(path / value)
        else:
            anchor_tokenizers(path, value)


def check_links(path: Path) -> None:
    """Check that the labels and tokenizers of a model directory lie in the directory.

    Raises:
        ValueError: If one is a link to a path outside of the directory.
    """
    root = path.resolve()
    for file in [path / "labels.json", *path.glob("tokenizer/**/*"), *path.glob("labels/**/*")]:
        if not file.resolve().is_relative_to(root):
            raise ValueError(f"{file}: leads out of the directory; copy the directory with the files that it links to")


def read_labels(file: Path) -> dict[str, list[str]]:
    """Read a labels.json file.

    Raises:
        ValueError: If it is not a mapping from names to lists of texts.
    """
    try:
        labels = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"labels.json: is damaged: {error}") from None
    if not isinstance(labels, dict):
        raise ValueError(f"labels.json: got {labels!r:.80}, wanted names and their classes")
    for name, classes in labels.items():
        if not isinstance(classes, list) or not all(isinstance(one, str) for one in classes):
            raise ValueError(f"labels.json: {name}: got {classes!r:.80}, wanted a list of texts")
    return labels


@contextmanager
def installed_packages_only() -> Iterator[None]:
    """Context manager in which nothing is imported from the working directory, which may be untrusted.

    Libraries import optional packages when a model needs them. Without this, a file of that name in the working
    directory would be executed.
    """
    here, kept = Path.cwd().resolve(), list(sys.path)
    sys.path[:] = [entry for entry in kept if Path(entry or ".").resolve() != here]
    try:
        yield
    finally:
        sys.path[:] = kept
