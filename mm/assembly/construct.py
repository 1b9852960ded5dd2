"""Construction of objects from configs. Values that come from data are never interpolated."""

import re
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from mm.configurable import configured
from mm.renames import upgrade, upgrade_keys


def escape(value: Any) -> Any:
    r"""Escape the interpolations of OmegaConf in values that come from data or from a file.

    Args:
        value: Plain data, with strings such as class names, columns and paths.

    Returns:
        A copy that OmegaConf resolves to the original strings: `${name}` becomes `\${name}`.

    Raises:
        ValueError: If a string is `???`, which OmegaConf always treats as a missing value.
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
    """Build the object that a node of a config describes.

    Every built object records its constructor arguments (see `mm.configurable`), so that a model can be saved.

    Args:
        cfg: The config.
        key: Dotted key of the node, which error messages name.
        **more: Further constructor arguments, which are passed on unchanged.

    Returns:
        The object; lists and mappings among its arguments are plain Python objects. With `_partial_=True`, in the
        config or in `more`, a `functools.partial` of its class.

    Raises:
        InstantiationException: If a class is not found, or if its constructor fails. The message names the key.
    """
    plain = OmegaConf.to_container(OmegaConf.select(cfg, key), resolve=True, throw_on_missing=True)
    return construct(plain, key, **more)


def construct(node: Any, key: str, **more: Any) -> Any:
    """Build the objects that plain data describes, the innermost first; see `build`.

    Args:
        node: Plain data. Mappings with a `_target_` become objects.
        key: Dotted key of the node, which error messages name.
        **more: Further constructor arguments of the outermost object.
    """
    if isinstance(node, list):
        return [construct(child, f"{key}[{index}]") for index, child in enumerate(node)]
    if not isinstance(node, dict):
        return node
    if "_target_" not in node:
        return {name: construct(child, f"{key}.{name}") for name, child in node.items()}
    node = {**node, **{name: value for name, value in more.items() if name == "_partial_"}}
    target = locate_target(node.pop("_target_"), key)
    partially = node.pop("_partial_", False)
    positional = construct(node.pop("_args_", []), key)
    for name in ("_convert_", "_recursive_"):
        node.pop(name, None)
    arguments = {name: construct(child, f"{key}.{name}") for name, child in node.items()}
    arguments |= {name: value for name, value in more.items() if name != "_partial_"}
    if partially:
        return partial(target, *positional, **arguments)
    try:
        return target(*positional, **arguments) if positional else configured(target, **arguments)
    except Exception as error:
        name = f"{target.__module__}.{target.__qualname__}"
        raise InstantiationException(f"Error in call to target '{name}':\n{error!r}\nfull_key: {key}") from error


def locate_target(target: Any, key: str) -> Any:
    """Return the class or function that a `_target_` names.

    Args:
        target: The dotted name.
        key: Dotted key of the config node.

    Raises:
        InstantiationException: If it does not exist. The message names the key.
    """
    node: Any = {"_target_": target, "_partial_": True}
    for name in reversed(key.split(".")):
        node = {name: node}
    config: Any = OmegaConf.create(node)
    for name in key.split("."):
        config = config[name]
    return instantiate(config).func


def read_resolved(path: Path) -> dict[str, Any]:
    """Read the config.yaml of a run folder as plain data, with the current names of keys, classes and arguments.

    The file contains no interpolations, because they were resolved when it was written.

    Raises:
        ValueError: If the file is not YAML, or does not contain a mapping.
    """
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: is no YAML: {error}") from None
    if not isinstance(found, dict):
        raise ValueError(f"{path}: got a {type(found).__name__}, wanted the mapping that a run writes")
    return upgrade(upgrade_keys(found))
