"""The config keys that the overrides of a command or the chosen experiment set."""

import re
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from mm.assembly.provenance import NamedKey


def find_named_keys(state: Any) -> list[NamedKey]:
    """Return the config keys that the user's overrides or the chosen experiment set.

    Args:
        state: Hydra's own config, `HydraConfig.get()`.
    """
    found = []
    for override in state.overrides.task:
        key = override.split("=", 1)[0]
        if not key.startswith("~"):
            found.append(NamedKey(dotted(key), f"the override {override}", typed=True))
    experiment = state.runtime.choices.get("experiment")
    if experiment:
        for source in state.runtime.config_sources:
            file = config_file(source, f"experiment/{experiment}.yaml")
            if file is not None:
                keys = experiment_keys(OmegaConf.load(file))
                found += [NamedKey(key, f"experiment={experiment}", typed=False) for key in keys]
    return found


def dotted(key: str) -> str:
    """Return the config key of an override key.

    For example, `+model/heads@model.heads.digit` is `model.heads.digit`, and `model/fusion` is `model.fusion`.
    """
    return re.sub(r"^\++", "", key).split("@")[-1].replace("/", ".")


def config_file(source: Any, name: str) -> Path | None:
    """Return the path of a file in one of Hydra's config sources; None if the source does not contain it."""
    if source.provider == "hydra" or source.schema not in ("pkg", "file"):
        return None
    if source.schema == "pkg":
        from importlib.resources import files

        root = Path(str(files(source.path.removeprefix("pkg://"))))
    else:
        root = Path(source.path)
    return root / name if (root / name).is_file() else None


def experiment_keys(config: Any) -> list[str]:
    """Return the keys of the groups that an experiment's defaults list chooses, and the keys that it sets itself."""
    found = []
    for entry in config.get("defaults") or []:
        if isinstance(entry, DictConfig):
            found += [dotted(str(k).removeprefix("override ").lstrip("/")) for k, v in entry.items() if v is not None]

    def walk(node: DictConfig, prefix: str) -> None:
        for key in node:
            child = node._get_node(key)
            if isinstance(child, DictConfig) and not child._is_none() and len(child):
                walk(child, f"{prefix}{key}.")
            else:
                found.append(f"{prefix}{key}")

    walk(OmegaConf.masked_copy(config, [k for k in config if k != "defaults"]), "")
    return found
