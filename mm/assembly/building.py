"""Build a model for some data, with default parts where none are given."""

from collections.abc import Sequence
from typing import Any

import torch
from omegaconf import OmegaConf, open_dict
from torch import nn

from mm.assembly.compose import compose_config, model_overrides
from mm.assembly.construct import construct
from mm.assembly.finish import finish_model, without
from mm.messages import near
from mm.model import MultimodalModel
from mm.types import DataSpec


def build(
    spec: DataSpec,
    *,
    fusion: str | nn.Module | None = None,
    embed_dim: int | None = None,
    seed: int = 0,
    overrides: Sequence[str] = (),
    **parts: str | nn.Module,
) -> MultimodalModel:
    """Build a model for the inputs and targets of some data.

    The default parts are those of `mm train`: with the same seed the weights are the same.

    Args:
        spec: Inputs and targets, `data.spec`.
        fusion: A fusion, or the name of one, such as "gated"; default: concatenation.
        embed_dim: Width D to which every encoder is projected; default: that of `conf/model/multimodal.yaml`.
        seed: Seed of the initial weights. The random state of the caller is left as it is.
        overrides: Hydra overrides of the model's config, such as "model.encoders.text.num_layers=4".
        **parts: Input name to an encoder, or the name of one; target name to a head, or the name of one.

    Returns:
        The model, in training mode.

    Raises:
        ValueError: If a name is no input or target, or there is no part of that name.

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
    modules = {name: part for name, part in parts.items() if isinstance(part, nn.Module)}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        encoders: dict[str, Any] = {
            name: modules.get(name) or construct(encoder, f"model.encoders.{name}")
            for name, encoder in node["encoders"].items()
        }
        fused: Any = fusion if isinstance(fusion, nn.Module) else construct(node["fusion"], "model.fusion")
        heads: dict[str, Any] = {
            name: modules.get(name) or construct(without(head, "target_codec", "metrics"), f"model.heads.{name}")
            for name, head in node["heads"].items()
        }
        return MultimodalModel(encoders, fused, heads, node["embed_dim"], node["shared_encoders"])
