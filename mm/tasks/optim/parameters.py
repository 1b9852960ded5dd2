"""Which parameters train, how fast, and with what decay: regex rules on their names, first match wins (big_vision)."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from torch import nn


@runtime_checkable
class Layered(Protocol):
    """An encoder that states the order of its layers."""

    def layer_order(self) -> list[list[str]]:
        """Return prefixes of the parameters' names, layer by layer from input to output."""
        ...


def freeze(model: nn.Module, rules: Sequence[str]) -> None:
    """Stop the gradient of every parameter that a rule finds. Errors: ValueError where a rule finds none."""
    check_rules(rules, "freeze", [name for name, _ in model.named_parameters()])
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
    layer_decay: factor per encoder layer counted from its last (Clark 2020), as its `layer_order` states them; more:
    named parameters besides the model's. Errors: ValueError where a rule finds no parameter, a factor is out of range,
    or nothing trains.
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
    check_rules(lr_scale, "lr_scale", names)
    check_rules(no_decay, "no_decay", names)
    above = layers_above(model, names, "layer_decay") if layer_decay < 1 else {}
    if layer_decay < 1 and not any(above.values()):
        raise ValueError(f"task.layer_decay: got {layer_decay}, but no encoder has two layers that train; set it to 1")
    found: dict[tuple[float, float], dict[str, Any]] = {}
    for name, parameter in named:
        scale = next((factor for rule, factor in lr_scale.items() if re.search(rule, name)), 1.0)
        scale *= layer_decay ** above.get(name, 0)
        # Biases and the gains of norms have one axis, whatever a library calls them.
        decay = 0.0 if parameter.ndim < 2 or any(re.search(rule, name) for rule in no_decay) else weight_decay
        group = found.setdefault((scale, decay), {"params": [], "lr": lr * scale, "weight_decay": decay})
        group["params"].append(parameter)
    return list(found.values())


def check_rules(rules: Iterable[str], option: str, names: Sequence[str], kind: str = "parameter that trains") -> None:
    """Errors: ValueError where a rule is no regex, or finds no name."""
    for rule in rules:
        try:
            found = any(re.search(rule, name) for name in names)
        except re.error as error:
            raise ValueError(f"task.{option}: '{rule}' is no regular expression: {error}") from None
        if not found:
            some = ", ".join(sorted({".".join(name.split(".")[:3]) for name in names})[:12])
            raise ValueError(f"task.{option}: '{rule}' finds no {kind}; there are {some}, ...")


def layers_above(model: nn.Module, names: Iterable[str], option: str) -> dict[str, int]:
    """Count the layers above each parameter of an encoder, by the order that the encoder states.

    Args:
        model: A model with `encoders`.
        names: Full names of the parameters that train.
        option: The option that asks, for messages.

    Returns:
        Name of each of these parameters that belongs to an encoder -> how many layers lie above it.

    Raises:
        ValueError: If an encoder states no order of its layers, or one that leaves a parameter out, or if no encoder
            has two layers that train.
    """
    above: dict[str, int] = {}
    orders: dict[str, list[list[str]]] = {}
    for name in names:
        if name.startswith("encoders."):
            part = name.split(".")[1]
            if part not in orders:
                orders[part] = stated_order(part, model.get_submodule(f"encoders.{part}"), option)
            above[name] = from_last(part, name.removeprefix(f"encoders.{part}."), orders[part], option)
    return above


def stated_order(name: str, encoder: nn.Module, option: str) -> list[list[str]]:
    """Return what `layer_order` of an encoder gives. Errors: ValueError where it has none, or gives no lists."""
    kind = type(encoder).__name__
    fix = (
        f"; a method layer_order() of {kind} gives prefixes of parameter names, layer by layer from input to output, "
        f"such as [['embed'], ['blocks.0'], ['blocks.1', 'norm']]; or leave task.{option} out"
    )
    if not isinstance(encoder, Layered) or not callable(encoder.layer_order):
        raise ValueError(f"task.{option}: the encoder '{name}' ({kind}) does not state the order of its layers{fix}")
    try:
        order = encoder.layer_order()
    except ValueError as error:
        raise ValueError(f"task.{option}: encoder '{name}': {error}; leave task.{option} out") from None
    if not isinstance(order, list) or not all(isinstance(layer, list) for layer in order) or not order:
        raise ValueError(f"task.{option}: layer_order() of the encoder '{name}' gave {order!r}, wanted lists{fix}")
    return order


def from_last(encoder: str, name: str, order: Sequence[Sequence[str]], option: str) -> int:
    """Count the layers above a parameter of an encoder; of several prefixes that fit, the longest one counts."""
    fits = [
        (len(prefix), len(order) - 1 - place)
        for place, layer in enumerate(order)
        for prefix in layer
        if f"{name}.".startswith(f"{prefix}.")
    ]
    if not fits:
        raise ValueError(
            f"task.{option}: layer_order() of the encoder '{encoder}' leaves out its parameter '{name}'; name it, or "
            "what it begins with, in one of the layers"
        )
    return max(fits)[1]
