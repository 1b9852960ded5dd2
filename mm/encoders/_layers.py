"""Find the order of the layers of a transformers model by recording one forward pass.

If possible, the pass runs on the meta device, without weights.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from mm.encoders._source import huggingface_model


def huggingface_layers(config: Mapping[str, Any], modality: str, inputs: Mapping[str, Tensor]) -> list[list[str]]:
    """Return the layers of a transformers model from input to output, as prefixes of parameter names.

    The layers are the blocks of the largest `nn.ModuleList`, by number of parameters. Modules that are called before
    the first block form one more layer below it. Modules that are called between two blocks belong to the layer of the
    second one, and modules that are called after the last block belong to the last layer.

    Args:
        config: The plain config, as `huggingface_model` returns it.
        modality: Modality of the encoder.
        inputs: Arguments of the model's forward, for one small row.

    Returns:
        For each layer, the prefixes of the names of its parameters, which begin with `model.`.

    Raises:
        ValueError: If the model has no list of blocks, does not call the blocks in order, or can't be run.
    """
    kind = config.get("model_type")
    with torch.random.fork_rng(devices=[]):  # random weights must not change the random numbers of training
        try:
            model, calls = watched(config, modality, inputs, torch.device("meta"))
        except (RuntimeError, NotImplementedError, ValueError):  # forward needs values, which meta lacks
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
    """Build a model with random weights, run it once, and record the order in which its modules are called.

    Args:
        config: The plain config, as `huggingface_model` returns it.
        modality: Modality of the encoder.
        inputs: Arguments of the model's forward.
        device: Device of the model, such as the meta device.

    Returns:
        The model, and for each called module, by name, the index of its first call.
    """
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
    """Return the name of the `nn.ModuleList` with the most parameters, or None if there is no list.

    Lists inside of other lists are ignored.
    """
    found: dict[str, int] = {}
    for name, module in model.named_modules():
        if type(module) is nn.ModuleList and not any(inside(name, outer) for outer in found):
            found[name] = sum(p.numel() for p in module.parameters())
    return max(found, key=lambda name: found[name]) if found else None


def inside(name: str, outer: str) -> bool:
    """Return whether a module is another module or one of its submodules, given the names of both."""
    return f"{name}.".startswith(f"{outer}.")


def called(name: str, calls: Mapping[str, int]) -> int:
    """Return the index of the first call of a module.

    The weights of some modules are used without a call. For these, the index of the nearest enclosing module is
    returned.

    Args:
        name: Name of the module.
        calls: Index of the first call of each called module, by name.
    """
    while name and name not in calls:
        name = name.rpartition(".")[0]
    return calls[name]
