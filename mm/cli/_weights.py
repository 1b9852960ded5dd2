"""What a model begins with: the weights of models trained before."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from mm import checkpoint
from mm.assembly.construct import build
from mm.messages import is_first_process, listing, near
from mm.model import MultimodalModel
from mm.peft import adapters


def read_sources(cfg: DictConfig) -> list[dict[str, Any]]:
    """Read model.init_from: the weights that the model begins with.

    Returns:
        `{path, only}` of each source, in the order in which they are loaded.

    Raises:
        ValueError: If an entry has another form.
    """
    given: Any = OmegaConf.to_container(cfg.model, resolve=True).get("init_from")  # type: ignore[union-attr]
    if given is None:
        return []
    sources = []
    for entry in given if isinstance(given, list) else [given]:
        source: Any = {"path": entry} if isinstance(entry, str) else entry
        if not isinstance(source, Mapping) or not isinstance(source.get("path"), str):
            raise ValueError(
                f"model.init_from: got {entry}, wanted a model directory, or {{path: DIR, include: [regex]}}"
            )
        for key in source:
            if key == "only":
                raise ValueError("model.init_from: the key 'only' is now 'include'")
            if key not in ("path", "include"):
                raise ValueError(
                    f"model.init_from: no key '{key}', wanted path and include{near(key, ['path', 'include'])}"
                )
        include = source.get("include", "")
        sources.append({"path": source["path"], "include": [include] if isinstance(include, str) else list(include)})
    return sources


def take(sources: list[dict[str, Any]], model: MultimodalModel) -> None:
    """Load what fits by name and shape, in turn, and print what was taken, left and new.

    Errors: ValueError where nothing fits, or a regex matches no weight of its source.
    """
    wanted = model.state_dict()
    taken: set[str] = set()
    for source in sources:
        weights = checkpoint.weights(source["path"])
        for regex in source["include"]:
            if not any(re.search(regex, name) for name in weights):
                raise ValueError(f"model.init_from.include: '{regex}' matches no weight of {source['path']}")
        chosen = {n: x for n, x in weights.items() if any(re.search(regex, n) for regex in source["include"])}
        fitting = {n: x for n, x in chosen.items() if n in wanted and x.shape == wanted[n].shape}
        if not fitting:
            raise ValueError(
                f"model.init_from: nothing of {source['path']} fits this model, such as "
                f"{next((misfit(n, x, wanted) for n, x in chosen.items()), 'an empty file')}"
            )
        model.load_state_dict(fitting, strict=False)
        taken.update(fitting)
        if is_first_process():
            print(f"model.init_from: {len(fitting)} weights of {source['path']} taken: {parts(fitting)}")
            for name in [n for n in chosen if n not in fitting]:
                print(f"  left: {misfit(name, chosen[name], wanted)}")
    new = [name for name in wanted if name not in taken]
    if sources and new and is_first_process():
        print(f"  new: {parts(new)}")


def adapt(cfg: DictConfig, model: MultimodalModel) -> None:
    """Adapters beside the encoders, or what of them is frozen, as cfg.peft has it.

    Errors: ValueError where it names nothing, or leaves what is new unlearnt.
    """
    if cfg.get("peft") is None:
        return
    if not has_adapters(cfg):  # rules of the task, beside its own
        cfg.task.freeze = [*cfg.task.freeze, *cfg.peft.get("freeze", [])]
        cfg.task.gradual_unfreeze = cfg.peft.get("gradual_unfreeze", cfg.task.gradual_unfreeze)
        return
    config = build(cfg, "peft.config")
    adapted = adapters.attach(model, config, list(cfg.peft.modules_to_save))
    for name in sorted(adapted):
        encoder: Any = model.get_submodule(name)
        if (
            name.startswith("encoders.")
            and encoder.input.marker_tokens
            and not encoder.model.get_input_embeddings().weight.requires_grad
        ):
            raise ValueError(
                f"peft: the markers of {name} are new, and would never be learnt; let the embeddings learn as well, "
                "with peft.modules_to_save=[word_embeddings], or what the encoder calls them"
            )
    if cfg.peft.adapter_path and not cfg.get("resume"):
        plain: Any = OmegaConf.to_container(cfg.peft.config, resolve=True)
        adapters.load(Path(cfg.peft.adapter_path), model, plain)
    every = [(p.numel(), p.requires_grad) for name in sorted(adapted) for p in model.get_submodule(name).parameters()]
    some, whole = sum(n for n, learns in every if learns), sum(n for n, _ in every)
    if is_first_process():
        print(f"peft: {some:,} of {whole:,} weights of {listing(sorted(adapted))} learn ({some / whole:.2%})")


def has_adapters(cfg: DictConfig) -> bool:
    """Whether cfg.peft puts some beside the encoders; else it only freezes, or there is none."""
    return cfg.get("peft") is not None and "config" in cfg.peft


def leave_adapter(cfg: DictConfig, model: MultimodalModel, folder: Path) -> dict[str, Path]:
    """Save the adapters alone, and merge them into the model. -> where they are, by what, if there are any"""
    if not has_adapters(cfg):
        return {}
    config: Any = OmegaConf.to_container(cfg.peft.config, resolve=True)
    adapters.save(folder / "adapter", model, config)
    adapters.merge(model)
    return {"adapter": folder / "adapter"}


def misfit(name: str, found: Any, wanted: Mapping[str, Any]) -> str:
    """Why a weight was left."""
    if name not in wanted:
        return f"{name}, which this model has not"
    return f"{name}, of shape {tuple(found.shape)}, here {tuple(wanted[name].shape)}"


def parts(names: Any) -> str:
    """encoders.text (12), fusion (3): the parts of the model that these weights are of."""
    found: dict[str, int] = {}
    for name in names:
        words = name.split(".")
        part = words[0] if words[0] == "fusion" else ".".join(words[:2])
        found[part] = found.get(part, 0) + 1
    return ", ".join(f"{part} ({count})" for part, count in found.items())
