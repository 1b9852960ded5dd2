"""Adapters of encoders, and the rules of `peft` configs that freeze encoders."""

from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from mm.assembly.construct import build
from mm.messages import listing, say
from mm.model import MultimodalModel
from mm.peft import adapters


def attach_adapters(cfg: DictConfig, model: MultimodalModel) -> None:
    """Attach adapters to the parts of a model, or freeze parameters, as `cfg.peft` specifies.

    It does nothing if `cfg.peft` is not set. A `peft` config without adapters changes only `cfg.task`.

    Args:
        cfg: The config. If `cfg.peft` only freezes parameters, its rules are added to those of `cfg.task`.
        model: The model, changed in place.

    Raises:
        ValueError: If `cfg.peft` matches no part of the model, or if an encoder with adapters has new marker tokens
            whose embeddings are frozen.
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
    every = [p for name in sorted(adapted) for p in model.get_submodule(name).parameters()]
    trained, total = sum(p.numel() for p in every if p.requires_grad), sum(p.numel() for p in every)
    say(f"peft: {trained:,} of {total:,} weights of {listing(sorted(adapted))} learn ({trained / total:.2%})")


def has_adapters(cfg: DictConfig) -> bool:
    """Return whether `cfg.peft` attaches adapters.

    It is False if `cfg.peft` is not set, or if it only freezes parameters.
    """
    return cfg.get("peft") is not None and "config" in cfg.peft


def merge_adapters(cfg: DictConfig, model: MultimodalModel, folder: Path | None) -> dict[str, Path]:
    """Save the adapters separately, and merge them into the weights of the model.

    Args:
        cfg: The config.
        model: The model, changed in place.
        folder: The run folder, in which the adapters are saved; None: they are not saved.

    Returns:
        The key `adapter` with the folder of the adapters; empty if the model has no adapters, or if they are not saved.
    """
    if not has_adapters(cfg):
        return {}
    config: Any = OmegaConf.to_container(cfg.peft.config, resolve=True)
    if folder is not None:
        adapters.save(folder / "adapter", model, config)
    adapters.merge(model)
    return {} if folder is None else {"adapter": folder / "adapter"}
