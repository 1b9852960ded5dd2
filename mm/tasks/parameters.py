"""Which parameters train, how fast, and with what decay: regex rules on their names, first match wins (big_vision)."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import nn

LAYER = re.compile(r"^(encoders\.[^.]+)\..*?\b(?:layers?|blocks|stages|h)\.(\d+)\.")


def freeze(model: nn.Module, rules: Sequence[str]) -> None:
    """Stop the gradient of every parameter that a rule finds. Errors: ValueError where a rule finds none."""
    check(rules, "freeze", [name for name, _ in model.named_parameters()])
    for name, parameter in model.named_parameters():
        if any(re.search(rule, name) for rule in rules):
            parameter.requires_grad_(False)


def groups(
    model: nn.Module,
    lr: float,
    weight_decay: float,
    lr_scale: Mapping[str, float],
    no_decay: Sequence[str],
    layer_decay: float = 1.0,
    more: Iterable[tuple[str, nn.Parameter]] = (),
) -> list[dict[str, Any]]:
    """Groups for a torch optimizer, of the parameters that train.

    lr_scale: regex -> factor on the learning rate; no_decay: regexes, besides which no bias and no norm decays;
    layer_decay: factor per encoder layer counted from its last (Clark 2020); more: named parameters besides the
    model's. Errors: ValueError where a rule finds no parameter, a factor is out of range, or nothing trains.
    """
    if not 0 < layer_decay <= 1:
        raise ValueError(f"task.layer_decay: got {layer_decay}, wanted a factor above 0, at most 1")
    for rule, factor in lr_scale.items():
        if not 0 <= factor < float("inf"):
            raise ValueError(f"task.lr_scale: got {factor} for '{rule}', wanted 0 or more; task.freeze stops it whole")
    named = [(name, p) for name, p in (*model.named_parameters(), *more) if p.requires_grad]
    if not named:
        raise ValueError("task.freeze: every parameter is frozen; narrow its rules")
    names = [name for name, _ in named]
    check(lr_scale, "lr_scale", names)
    check(no_decay, "no_decay", names)
    depth = depths(names)
    found: dict[tuple[float, float], dict[str, Any]] = {}
    for name, parameter in named:
        scale = next((factor for rule, factor in lr_scale.items() if re.search(rule, name)), 1.0)
        scale *= layer_decay ** from_last(name, depth)
        # Biases and the gains of norms have one axis, whatever a library calls them.
        decay = 0.0 if parameter.ndim < 2 or any(re.search(rule, name) for rule in no_decay) else weight_decay
        group = found.setdefault((scale, decay), {"params": [], "lr": lr * scale, "weight_decay": decay})
        group["params"].append(parameter)
    return list(found.values())


def check(rules: Iterable[str], option: str, names: Sequence[str], what: str = "parameter that trains") -> None:
    """Errors: ValueError where a rule is no regex, or finds no name."""
    for rule in rules:
        try:
            found = any(re.search(rule, name) for name in names)
        except re.error as error:
            raise ValueError(f"task.{option}: '{rule}' is no regular expression: {error}") from None
        if not found:
            some = ", ".join(sorted({".".join(name.split(".")[:3]) for name in names})[:12])
            raise ValueError(f"task.{option}: '{rule}' finds no {what}; there are {some}, ...")


def depths(names: Iterable[str]) -> dict[str, int]:
    """Encoder -> how many numbered layers it has."""
    depth: dict[str, int] = {}
    for name in names:
        if found := LAYER.search(name):
            depth[found[1]] = max(depth.get(found[1], 0), int(found[2]) + 1)
    return depth


def from_last(name: str, depth: Mapping[str, int]) -> int:
    """Layers above a parameter in its encoder: 0 outside encoders, all of them below the first layer."""
    if found := LAYER.search(name):
        return depth[found[1]] - 1 - int(found[2])
    encoder = ".".join(name.split(".")[:2])
    # What comes after the layers (a last norm, a pooling) can't be told from what comes before them by its name alone,
    # but it is a norm or bears "pool"; all else that is not numbered is an embedding.
    if encoder in depth and not re.search(r"pool|norm", name):
        return depth[encoder]
    return 0
