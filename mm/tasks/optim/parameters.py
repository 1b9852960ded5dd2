"""Parameter groups: which parameters train, at which learning rate, and with which weight decay.

They are selected by regular expressions on the parameter names; the first one that matches applies (as in big_vision).
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from torch import nn


@runtime_checkable
class Layered(Protocol):
    """An encoder that states the order of its layers, for layer-wise learning rates and gradual unfreezing."""

    def layer_order(self) -> list[list[str]]:
        """Return prefixes of the parameter names, layer by layer from input to output."""
        ...


def freeze(model: nn.Module, rules: Sequence[str]) -> None:
    """Set `requires_grad=False` on every parameter whose name matches a rule.

    Args:
        model: The model, changed in place.
        rules: Regular expressions on parameter names.

    Raises:
        ValueError: If a rule is not a valid regular expression, or matches no parameter.
    """
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
    """Return the parameter groups of the trainable parameters, for a torch optimizer.

    Biases and the weights of norms, which have fewer than two dimensions, are never decayed.

    Args:
        model: The model.
        lr: Base learning rate.
        weight_decay: Weight decay of the parameters that are decayed.
        lr_scale: Regular expression on parameter names to factor on the learning rate.
        no_decay: Regular expressions of further parameters without weight decay.
        layer_decay: Factor on the learning rate per encoder layer, counted from the last layer (Clark 2020), in the
            order of the encoder's `layer_order`; 1: no decay.
        more: Names and parameters that do not belong to the model, such as those of a loss.

    Returns:
        One dictionary per group, with `params`, `lr` and `weight_decay`.

    Raises:
        ValueError: If a rule matches no parameter, if a factor is out of range, or if no parameter is trainable.
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
        # Biases and the weights of norms have one dimension, under any name.
        decay = 0.0 if parameter.ndim < 2 or any(re.search(rule, name) for rule in no_decay) else weight_decay
        group = found.setdefault((scale, decay), {"params": [], "lr": lr * scale, "weight_decay": decay})
        group["params"].append(parameter)
    return list(found.values())


def check_rules(rules: Iterable[str], option: str, names: Sequence[str], kind: str = "parameter that trains") -> None:
    """Check that each rule is a valid regular expression and matches a name.

    Args:
        rules: Regular expressions.
        option: Name of the option of `task`, for the error message.
        names: Names of parameters or modules. Each rule has to match at least one.
        kind: Noun for the names in the error message.

    Raises:
        ValueError: If a rule is not a valid regular expression, or matches no name.
    """
    for rule in rules:
        try:
            found = any(re.search(rule, name) for name in names)
        except re.error as error:
            raise ValueError(f"task.{option}: '{rule}' is no regular expression: {error}") from None
        if not found:
            some = ", ".join(sorted({".".join(name.split(".")[:3]) for name in names})[:12])
            raise ValueError(f"task.{option}: '{rule}' finds no {kind}; there are {some}, ...")


def layers_above(model: nn.Module, names: Iterable[str], option: str) -> dict[str, int]:
    """Count the layers above each parameter of an encoder, in the order that the encoder states.

    Args:
        model: A model with `encoders`.
        names: Full names of the trainable parameters.
        option: Name of the option of `task` that needs the order, for error messages.

    Returns:
        Name of each of these parameters that belongs to an encoder to the number of layers above it.

    Raises:
        ValueError: If an encoder does not state the order of its layers, or if that order leaves out a parameter.
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
    """Return the result of an encoder's `layer_order`, after checking it.

    Args:
        name: Name of the encoder, for error messages.
        encoder: The encoder.
        option: Name of the option of `task` that needs the order, for error messages.

    Returns:
        Prefixes of the parameter names, layer by layer from input to output.

    Raises:
        ValueError: If the encoder has no `layer_order`, or if its result is not a list of lists.
    """
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
    """Count the layers above a parameter of an encoder; of several matching prefixes, the longest one decides.

    Args:
        encoder: Name of the encoder, for the error message.
        name: Name of the parameter within the encoder.
        order: Prefixes of the parameter names, layer by layer from input to output.
        option: Name of the option of `task` that needs the order, for the error message.

    Returns:
        The number of layers above the layer of the parameter.

    Raises:
        ValueError: If no prefix matches the parameter.
    """
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
