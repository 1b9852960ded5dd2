"""The order of a transformers model's layers, found by watching one forward of a model without weights."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from mm.encoders._source import huggingface_model


def huggingface_layers(config: Mapping[str, Any], modality: str, inputs: Mapping[str, Tensor]) -> list[list[str]]:
    """Return the layers of a transformers model from input to output, as prefixes of parameter names in `model`.

    The layers are the members of its longest list of blocks, by parameters. What is called before the first of them is
    one layer below, what is called between two of them belongs to the upper one, and what is called after the last
    belongs to the last.

    Args:
        config: The plain config, as of `huggingface_model`.
        modality: The modality of the encoder.
        inputs: Arguments of the model's forward, of one small row.

    Returns:
        Prefixes of each layer.

    Raises:
        ValueError: If the model has no list of blocks, does not call it in order, or can't be run.
    """
    kind = config.get("model_type")
    with torch.random.fork_rng(devices=[]):  # building draws random numbers, and training must not notice
        try:
            model, calls = watched(config, modality, inputs, torch.device("meta"))
        except (RuntimeError, NotImplementedError, ValueError):  # its forward looks at values, which meta has none of
            model, calls = watched(config, modality, inputs, torch.device("cpu"))
    blocks = longest_list(model)
    if blocks is None:
        raise ValueError(f"the {kind} of transformers has no list of blocks")
    children = [f"{blocks}.{i}" for i in range(len(model.get_submodule(blocks)))]  # type: ignore[arg-type]
    starts = [min((t for n, t in calls.items() if inside(n, child)), default=-1) for child in children]
    if starts[0] < 0 or starts != sorted(starts):
        raise ValueError(f"the {kind} of transformers does not call the blocks of '{blocks}' in their order")
    layers: list[list[str]] = [[], *([f"model.{child}"] for child in children)]
    for name, module in model.named_modules():
        own = [key for key, p in module._parameters.items() if p is not None]
        if own and not any(inside(name, child) for child in children):
            begun = sum(start < called(name, calls) for start in starts)
            place = 0 if not begun else min(begun + 1, len(children))
            layers[place] += [f"model.{name}"] if name else [f"model.{key}" for key in own]
    return [layer for layer in layers if layer]


def watched(
    config: Mapping[str, Any], modality: str, inputs: Mapping[str, Tensor], device: torch.device
) -> tuple[nn.Module, dict[str, int]]:
    """Build a model with random weights and run it. -> the model, and when each module was called first."""
    with device:
        model, _ = huggingface_model(None, config, True, modality)
    calls: dict[str, int] = {}

    def note(name: str) -> Callable[..., None]:
        def hook(*_: Any) -> None:
            calls.setdefault(name, len(calls))

        return hook

    handles = [module.register_forward_pre_hook(note(name)) for name, module in model.named_modules()]
    with torch.no_grad():
        model.eval()(**{name: x.to(device) for name, x in inputs.items()})
    for handle in handles:
        handle.remove()
    return model, calls


def longest_list(model: nn.Module) -> str | None:
    """Return the name of the list of modules, of those within no other, that has the most parameters."""
    found: dict[str, int] = {}
    for name, module in model.named_modules():
        if type(module) is nn.ModuleList and not any(inside(name, outer) for outer in found):
            found[name] = sum(p.numel() for p in module.parameters())
    return max(found, key=lambda name: found[name]) if found else None


def inside(name: str, outer: str) -> bool:
    """Return whether a module is another one or lies within it."""
    return f"{name}.".startswith(f"{outer}.")


def called(name: str, calls: Mapping[str, int]) -> int:
    """Return when a module was called, or the nearest one around it: some weights are read without a call."""
    while name and name not in calls:
        name = name.rpartition(".")[0]
    return calls[name]
