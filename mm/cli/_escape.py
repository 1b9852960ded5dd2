"""Data inside a config is data: nothing of it is interpolated."""

import re
from pathlib import Path
from typing import Any

import yaml
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from mm.cli._renamed import rename_targets


def escape(value: Any) -> Any:
    r"""Escape what OmegaConf would interpolate in values that come from data or from a file.

    Args:
        value: Plain data; its texts are class names, columns, paths and the like.

    Returns:
        The same, so that OmegaConf resolves each text to what it was: `${name}` becomes `\${name}`.

    Raises:
        ValueError: If a text is `???`, which OmegaConf takes for a missing value whatever is done.
    """
    if isinstance(value, dict):
        return {key: escape(child) for key, child in value.items()}
    if isinstance(value, list | tuple):
        return [escape(child) for child in value]
    if value == "???":
        raise ValueError("a class, a category or a column is called '???', which configs read as missing; rename it")
    if isinstance(value, str) and "${" in value:
        return re.sub(r"(\\*)\$\{", lambda found: f"{found[1] * 2}\\${{", value)
    return value


def build(cfg: DictConfig, key: str, **more: Any) -> Any:
    """Build what a part of a config describes.

    Hydra's `instantiate` resolves a config, and then what that has given once more: a class called `${name}` would
    still be looked up.

    Args:
        cfg: The config.
        key: Dotted key of the part, which error messages name.
        **more: Further arguments of `instantiate`, such as `_partial_=True`.

    Returns:
        The object; lists and mappings among its arguments are plain.
    """
    plain = OmegaConf.to_container(OmegaConf.select(cfg, key), resolve=True, throw_on_missing=True)
    node: Any = escape(escape(plain))
    for name in reversed(key.split(".")):
        node = {name: node}
    return instantiate(OmegaConf.select(OmegaConf.create(node), key), _convert_="all", **more)


def read_resolved(path: Path) -> dict[str, Any]:
    """The config.yaml of a run folder, whose values were resolved when it was written, as plain data.

    Raises:
        ValueError: If it is no mapping.
    """
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: is no YAML: {error}") from None
    if not isinstance(found, dict):
        raise ValueError(f"{path}: got a {type(found).__name__}, wanted the mapping that a run writes")
    return rename_targets(found)
