"""Construction of a model for the inputs and targets of some data, with default parts."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from omegaconf import OmegaConf, open_dict
from torch import nn

from mm.assembly.compose import compose_config, model_overrides
from mm.assembly.construct import construct
from mm.assembly.finish import finish_model, input_facts, target_facts, without
from mm.assembly.overrides import parse_override
from mm.configurable import configured
from mm.messages import listing, near
from mm.model import MultimodalModel
from mm.types import DataSpec

Part = str | nn.Module | Callable[..., nn.Module]  # a name, an object, or a class or partial that builds one


def build(
    spec: DataSpec,
    *,
    fusion: Part | None = None,
    embed_dim: int | None = None,
    seed: int = 0,
    overrides: Sequence[str] = (),
    **parts: Part,
) -> MultimodalModel:
    """Build a model for the inputs and targets of some data.

    The default parts are those of `mm train`, and with the same seed the weights are the same.

    A part can be given as an object, such as `VisionConv(channels=3)`; as a name from the command line, such as "conv";
    or as a class or a `functools.partial` of one, such as `partial(TransformerFusion, num_layers=4)`. For a class or
    partial, the arguments that follow from the data are filled in: names of inputs, widths, channels and classes.

    Args:
        spec: Inputs and targets of the data, `data.spec`.
        fusion: The fusion; default: concatenation.
        embed_dim: Width D to which every encoder is projected; default: that of `conf/model/multimodal.yaml`.
        seed: Random seed of the initial weights. The random state of the caller is not changed.
        overrides: Hydra overrides of the model's config, such as "model.encoders.text.num_layers=4".
        **parts: Input name to an encoder, and target name to a head.

    Returns:
        The model, in training mode.

    Raises:
        ValueError: If a name is neither an input nor a target, if a part of a given name does not exist, if a class
            has an argument that neither the data nor a `functools.partial` provides, or if an override sets a metric.

    Example:
        >>> import mm
        >>> data = mm.Manifest([{"text": "fine", "mood": "good"}] * 10, targets=["mood"])
        >>> model = mm.build(data.spec, text="hashed_ngrams", fusion="gated")
        >>> list(model.encoders), list(model.heads)
        (['text'], ['mood'])
    """
    known = [*spec.inputs, *spec.targets]
    for name in parts:
        if name not in known:
            raise ValueError(f"no input or target '{name}', only {', '.join(known)}{near(name, known)}")
    check_no_metrics(overrides)
    words = model_overrides(spec, {name: part for name, part in parts.items() if isinstance(part, str)})
    if isinstance(fusion, str):
        words.append(f"model/fusion={fusion}")
    if embed_dim is not None:
        words.append(f"model.embed_dim={embed_dim}")
    cfg = compose_config("train", [*words, *overrides])
    with open_dict(cfg):
        for name in spec.inputs:
            if name in parts and name not in cfg.model.encoders:
                cfg.model.encoders[name] = {}  # of a modality that the registry has no encoder for
    finish_model(cfg, spec)
    node: Any = OmegaConf.to_container(cfg.model, resolve=True)
    width = node["embed_dim"]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        encoders = {
            name: build_part(parts.get(name), encoder, f"model.encoders.{name}", input_facts(spec.inputs[name]))
            for name, encoder in node["encoders"].items()
        }
        inputs = [*encoders, *(node["shared_encoders"] or {})]
        fused = build_part(fusion, node["fusion"], "model.fusion", {"inputs": inputs, "embed_dim": width})
        heads = {
            name: build_part(
                parts.get(name),
                without(head, "target_codec", "metrics"),
                f"model.heads.{name}",
                {"embed_dim": width} | target_facts(spec.targets[name]),
            )
            for name, head in node["heads"].items()
        }
        return MultimodalModel(encoders, fused, heads, width, node["shared_encoders"])


def check_no_metrics(overrides: Sequence[str]) -> None:
    """Raise a ValueError if an override sets a metric of a head, which belongs to the training and not to the model."""
    for word in overrides:
        parts = parse_override(word)[0].split(".")
        if parts[:2] == ["model", "heads"] and "metrics" in parts[3:4]:
            raise ValueError(
                f"overrides: got '{word}', but a model has no metrics; pass this override to mm.train(model, data, "
                "overrides=[...]), with 'allow=[PACKAGE]' beside it for a metric of a package of your own"
            )


def build_part(part: Part | None, node: Mapping[str, Any], key: str, filled: Mapping[str, Any]) -> Any:
    """Build an encoder, a fusion or a head.

    Args:
        part: An object, which is returned; or a class or partial, which is called; or a name or None, for the part that
            `node` describes.
        node: The completed config of the part.
        key: Config key of the part, for error messages.
        filled: Argument name to the value that follows from the data; None if the data does not provide it.

    Raises:
        ValueError: If a required argument has no value.
    """
    if part is None or isinstance(part, str):
        return construct(node, key)
    if isinstance(part, nn.Module):
        return part
    factory = part if isinstance(part, partial) else partial(part)
    signature = inspect.signature(factory.func)
    parameters = signature.parameters
    given = signature.bind_partial(*factory.args).arguments | factory.keywords
    added = {n: v for n, v in filled.items() if n in parameters and n not in given and v is not None}
    lacking = [
        name
        for name, parameter in parameters.items()
        if parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        and name not in {*given, *added}
    ]
    if lacking:
        name = factory.func.__name__
        raise ValueError(
            f"{key}: {name} needs {listing(lacking)}, which the data does not state; pass "
            f"functools.partial({name}, {lacking[0]}=...)"
        )
    return configured(factory.func, **given, **added)
