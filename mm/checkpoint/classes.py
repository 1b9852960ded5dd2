"""Check of the classes that a model directory names, and construction of objects from plain data."""

import re
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from mm.configurable import configured
from mm.untrusted import children

# Packages whose classes may be built on loading. Nothing else that a config names is ever called.
ROOMS = ("encoders", "fusion", "heads", "layers", "losses", "metrics", "transforms", "targets", "model")
ALLOWED = (*(f"mm.{room}." for room in ROOMS), "torch.nn.", "torchvision.transforms.", "torchaudio.transforms.")
DOTTED = re.compile(r"\w+(\.\w+)+")
OPTIONAL = ("timm", "transformers", "torchaudio", "torchvision")  # packages that only some models need
# Modules of torchmetrics whose metrics neither download nor load a model.
METRICS = (
    *("aggregation", "classification", "clustering", "detection", "nominal", "regression", "retrieval"),
    *(f"text.{name}" for name in ("bleu", "cer", "chrf", "edit", "eed", "mer", "perplexity", "squad", "ter", "wer")),
    *("text.wil", "text.wip"),
)


def check_targets(node: Any, allow: Sequence[str] = ()) -> None:
    """Check that every `_target_` of a config belongs to an allowed package, without importing it.

    Args:
        node: The config.
        allow: Names of further allowed packages.

    Raises:
        ValueError: If a `_target_` belongs to another package.
    """
    if isinstance(node, list):
        for child in node:
            check_targets(child, allow)
    elif isinstance(node, dict):
        if "_target_" in node:
            check_name(node["_target_"], allow)
        for child in node.values():
            check_targets(child, allow)


def check_classes(node: Any, allow: Sequence[str] = ()) -> None:
    """Check that every `_target_` of a config is a class of an allowed package.

    Unlike `check_targets`, it imports the classes. It is meant for configs whose objects are built by Hydra, which
    would also call functions.

    Args:
        node: The config.
        allow: Names of further allowed packages.

    Raises:
        ValueError: If a `_target_` is not a class of an allowed package.
    """
    check_targets(node, allow)
    if isinstance(node, dict) and "_target_" in node:
        find_class(node["_target_"], allow)
    for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        check_classes(child, allow)


def build(node: Any, allow: Sequence[str] = ()) -> Any:
    """Build objects from plain data: every mapping with a `_target_` becomes an instance of that class.

    The objects know their constructor arguments, so that they can be saved again.

    Args:
        node: The plain data.
        allow: Names of further allowed packages.
    """
    if isinstance(node, list):
        return [build(x, allow) for x in node]
    if not isinstance(node, dict):
        return node
    built = {key: build(value, allow) for key, value in node.items() if key != "_target_"}
    return configured(find_class(node["_target_"], allow), **built) if "_target_" in node else built


def build_metrics(node: Any, allow: Sequence[str] = ()) -> Any:
    """Build the metrics that are named in a model directory.

    Args:
        node: Metric name to config.
        allow: Names of further allowed packages; `torchmetrics` allows all of its metrics.

    Returns:
        Metric name to metric.

    Raises:
        ValueError: If a metric does not belong to an allowed package, or if it could download or load another model.
    """
    modules = tuple(f"torchmetrics.{name}" for name in METRICS)
    for name, child in children(node):
        found = find_class(child["_target_"], ["torchmetrics", *allow])
        own = found.__module__.startswith("torchmetrics.") and "torchmetrics" not in allow
        if own and not found.__module__.startswith(modules):
            raise ValueError(
                f"the metric '{name}' is {child['_target_']}, which may load another model; if you trust it, set "
                "allow=[torchmetrics]"
            )
    return build(node, ["torchmetrics", *allow])


def check_name(target: Any, allow: Sequence[str] = ()) -> None:
    """Check that a class name belongs to an allowed package, without importing it.

    Raises:
        ValueError: If it does not.
    """
    if not isinstance(target, str) or not DOTTED.fullmatch(target) or not target.startswith(prefixes(allow)):
        package = str(target).split(".")[0]
        raise ValueError(
            f"the model's config names {target!s:.200}, which is outside {', '.join(ALLOWED)}; if you trust it, load "
            f"with mm.load(path, allow=['{package}']), or allow=[{package}] on the command line"
        )


def prefixes(allow: Sequence[str]) -> tuple[str, ...]:
    """Return the allowed prefixes of class names.

    Args:
        allow: Names of further allowed packages.
    """
    return (*ALLOWED, *(f"{name}." for name in allow))


def find_class(target: str, allow: Sequence[str] = ()) -> type:
    """Import a class of an allowed package and return it.

    Args:
        target: Import path of the class.
        allow: Names of further allowed packages.

    Raises:
        ValueError: If the target can't be imported, or is not a class of an allowed package.
    """
    check_name(target, allow)
    allowed = prefixes(allow)
    module, _, name = target.rpartition(".")
    try:
        found = getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"the model's config names {target}, which can't be imported: {error}") from None
    # Names that an allowed module has imported from elsewhere are not allowed.
    if not isinstance(found, type) or not f"{found.__module__}.".startswith(allowed):
        raise ValueError(f"the model's config names {target}, which is no class of an allowed package")
    return found
