"""The config of a verb with the chosen options but without any other override, for messages about mistakes."""

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from hydra import compose
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from mm._compat.omegaconf import plain_child
from mm.assembly.registry import open_registry


def compose_chosen(verb: str, typed: Sequence[str]) -> tuple[DictConfig, list[str]]:
    """Compose the config of a verb with the chosen options only.

    If the options can't be composed, the config has the default options.

    Args:
        verb: Name of the root config.
        typed: Flags and overrides of the command. Overrides that do not choose an option are ignored.

    Returns:
        The config, including Hydra's own, and the names of all config groups.
    """
    GlobalHydra.instance().clear()
    with open_registry():
        config = compose(verb, return_hydra_config=True)
        groups = list(config.hydra.runtime.choices)
        chosen = [arg for arg in typed if chooses_option(arg, groups)]
        with suppress(HydraException):  # one of them is a mistake as well, or an option from the user's own folder
            config = compose(verb, chosen, return_hydra_config=True)
    return config, groups


def chooses_option(arg: str, groups: Sequence[str]) -> bool:
    """Return whether an override chooses an option of a config group, adds one at a package, or deletes a group."""
    key = arg.partition("=")[0]
    return key.lstrip("+~").partition("@")[0] in groups or ("/" in key and key[0] in "+~")


def target_at(config: DictConfig, key: str) -> str | None:
    """Return the `_target_` of the config node at a dotted key; None if there is no such node or no `_target_`."""
    node = OmegaConf.select(config, key, throw_on_missing=False) if key else None
    return node.get("_target_") if isinstance(node, DictConfig) else None


def list_keys(node: Any, prefix: str = "") -> list[str]:
    """Return the dotted keys of a config, including those of nested mappings."""
    found = []
    for key in node:
        name = f"{prefix}{key}"
        found.append(name)
        child = plain_child(node, key)
        if child is not None:
            found += list_keys(child, f"{name}.")
    return found
