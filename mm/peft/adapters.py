"""Adapters: a small number of trained weights added to pretrained encoders and language models, which are frozen."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from mm.extras import require
from mm.files import whole
from mm.messages import near

ATTENTION = r"encoders\.\w+\.(?!pool\.).*\b(query|key|value|q_proj|k_proj|v_proj|q_lin|k_lin|v_lin|qkv|key_value)"


def attach(model: nn.Module, config: Any, also: Sequence[str] = ()) -> set[str]:
    """Attach adapters to the modules selected by a `peft` config, by default the attention projections of the encoders.

    In an encoder or language model with adapters, all other weights are frozen, except those of its pooling layer and
    those that match a regex of `also`. The other parts of the model are trained as without adapters.

    Args:
        model: The model, changed in place.
        config: A config of the `peft` library. Without `target_modules`, those of `ATTENTION` are used.
        also: Regular expressions of the names of further parameters to train.

    Returns:
        Names of the submodules that have adapters, such as `encoders.text` or `heads.target.lm`.

    Raises:
        ValueError: If the config matches no module, a module that does not support this adapter, or a module whose
            weight is tied to another one, if it sets `bias`, or if a regex is invalid or a regex of `also` matches no
            parameter.
    """
    inject_adapter_in_model = require("peft", "peft").inject_adapter_in_model  # slow to import
    from peft.tuners.tuners_utils import BaseTunerLayer

    for rule in also:
        try:
            re.compile(rule)
        except re.error as error:
            raise ValueError(f"peft.modules_to_save: '{rule}' is no regular expression: {error}") from None
    if config.to_dict().get("bias", "none") != "none":
        raise ValueError(f"peft.config.bias: got '{config.bias}'; leave it out, and say peft.modules_to_save=['bias$']")
    config.target_modules = wanted = ATTENTION if config.target_modules is None else config.target_modules
    try:
        found = [name for name, _ in model.named_modules() if isinstance(wanted, str) and re.fullmatch(wanted, name)]
    except re.error as error:
        raise ValueError(f"peft.config.target_modules: '{wanted}' is no regular expression: {error}") from None
    if isinstance(wanted, str) and not found:
        linear = sorted({name.split(".")[-1] for name, m in model.named_modules() if isinstance(m, nn.Linear)})
        raise ValueError(
            f"peft.config.target_modules: '{wanted}' is no module's whole name; linear layers are called "
            f"{', '.join(linear)}, such as {next(n for n, m in model.named_modules() if isinstance(m, nn.Linear))}"
        )
    before = {name: p.requires_grad for name, p in model.named_parameters()}
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    try:
        inject_adapter_in_model(config, model)
    except ValueError as error:
        raise ValueError(f"peft.config: {error}") from error
    layers = [name for name, module in model.named_modules() if isinstance(module, BaseTunerLayer)]
    for name in layers:
        layer: Any = model.get_submodule(name)
        for parameter in layer.get_base_layer().parameters():
            tied = names.get(id(parameter), [])
            if len(tied) > 1:
                raise ValueError(
                    f"peft.config.target_modules: '{wanted}' names {name}, but {' and '.join(tied)} are one weight: an "
                    "adapter beside one would become part of the other when it is merged; leave it out"
                )
    adapted = {part for name in layers if (part := owner(name))}
    if not adapted:
        raise ValueError(
            f"peft.config.target_modules: '{wanted}' names no module of an encoder or of a head's language model, only "
            f"{layers[0]}"
        )
    for rule in also:
        if not any(re.search(rule, name) for name in before):
            raise ValueError(f"peft.modules_to_save: '{rule}' finds no parameter")
    for name, parameter in model.named_parameters():
        part = owner(name)
        rest = name.removeprefix(f"{part}.").split(".")
        plain = name.replace(".base_layer.", ".")
        if plain not in before or (name != plain and not any(re.search(rule, plain) for rule in also)):
            continue  # a parameter of an adapter, or a weight that it adapts
        frozen = part in adapted and rest[:1] != ["pool"] and not any(re.search(rule, plain) for rule in also)
        parameter.requires_grad_(before[plain] and not frozen)
    return adapted


def owner(name: str) -> str:
    """Return the encoder or language model to which a parameter belongs, such as "encoders.text" or "heads.target.lm".

    The result is "" for parameters of other parts of the model.
    """
    found = re.match(r"encoders\.\w+|heads\.\w+\.lm\b", name)
    return found[0] if found else ""


def merge(model: nn.Module) -> None:
    """Add each adapter to the weights that it adapts and remove it, in place, without changing the outputs."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    for name, module in list(model.named_modules()):
        if isinstance(module, BaseTunerLayer):
            module.merge()
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, module.get_base_layer())


def base_names(model: nn.Module) -> list[str]:
    """Return the sorted names of the frozen parameters, including all names of tied parameters."""
    return sorted(name for name, p in model.named_parameters(remove_duplicate=False) if not p.requires_grad)


def digest(model: nn.Module, names: Sequence[str]) -> str:
    """Return the SHA-256 digest of the names and values of some parameters."""
    parameters = dict(model.named_parameters(remove_duplicate=False))
    found = hashlib.sha256()
    for name in names:
        found.update(name.encode())
        found.update(parameters[name].detach().cpu().reshape(-1).contiguous().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def save(path: Path, model: nn.Module, config: Mapping[str, Any]) -> None:
    """Save the adapter of a model into a folder: all tensors except the frozen parameters, and adapter.json.

    adapter.json contains the config, and the names and the digest of the frozen parameters. The folder is written
    completely before it gets its name.

    Args:
        path: The folder.
        model: The model.
        config: Config of the adapters, as plain data.
    """
    names = base_names(model)
    tensors = {n: x.detach().cpu().contiguous().clone() for n, x in model.state_dict().items() if n not in set(names)}
    told = {"config": config, "base": {"names": names, "sha256": digest(model, names)}}
    with whole(path) as part:
        part.mkdir(parents=True)
        save_file(tensors, str(part / "adapter.safetensors"))
        (part / "adapter.safetensors").chmod(0o644)  # safetensors makes it readable for its owner only
        (part / "adapter.json").write_text(json.dumps(told, indent=1), encoding="utf-8")


def read_told(file: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read and validate an adapter.json.

    Returns:
        The names and the digest of the frozen parameters with which the adapter was trained, and the config of the
        adapter.

    Raises:
        ValueError: If the file is damaged or has another structure.
    """
    try:
        told = json.loads(file.read_text(encoding="utf-8"))
        base, config = told["base"], told["config"]
        good = isinstance(config, dict) and all(isinstance(name, str) for name in base["names"]) and base["sha256"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"peft.adapter_path: {file}: is no adapter.json, or damaged: {error}") from None
    if not good:
        raise ValueError(f"peft.adapter_path: {file}: is no adapter.json, or damaged")
    return base, config


def load(path: Path, model: nn.Module, config: Mapping[str, Any]) -> None:
    """Load a saved adapter into a model that has adapters with the same config.

    Args:
        path: Folder of the adapter.
        model: The model, changed in place.
        config: Config of the model's adapters.

    Raises:
        ValueError: If the folder does not contain a valid adapter, or if its config, tensors or frozen parameters
            differ from those of the model.
    """
    if not (path / "adapter.json").is_file():
        raise ValueError(
            f"peft.adapter_path: no adapter at {path}: it has no adapter.json; a run leaves one as outputs/RUN/adapter"
        )
    base, saved = read_told(path / "adapter.json")
    for key in sorted({*saved, *config}):
        if saved.get(key) != config.get(key):
            raise ValueError(
                f"peft.config.{key}: got {config.get(key)}, but {path} has {saved.get(key)}; use the adapter's value"
            )
    try:
        tensors: dict[str, Tensor] = load_file(path / "adapter.safetensors")
    except (SafetensorError, OSError) as error:
        raise ValueError(f"peft.adapter_path: {path / 'adapter.safetensors'}: is damaged: {error}") from None
    ours = model.state_dict()
    for name in [*base["names"], *tensors]:
        if name not in ours:
            raise ValueError(
                f"peft.adapter_path: {path} has the weight {name}, which this model lacks{near(name, ours)}; build the "
                "model that the adapter was trained with"
            )
    for name, x in tensors.items():
        if x.shape != ours[name].shape:
            raise ValueError(f"peft.adapter_path: {name} of {path} is {tuple(x.shape)}, here {tuple(ours[name].shape)}")
    lacking = [name for name in ours if name not in tensors and name not in set(base["names"])]
    if lacking:
        raise ValueError(f"peft.adapter_path: {path} lacks {lacking[0]}, which this model has")
    if digest(model, base["names"]) != base["sha256"]:
        raise ValueError(
            f"peft.adapter_path: {path} was trained beside other weights than this model's; begin with the same "
            "model.encoders.*.pretrained and model.init_from"
        )
    model.load_state_dict(tensors, strict=False)
