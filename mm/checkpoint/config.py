"""Reading and writing of the config.yaml of a model directory, including upgrades from older formats."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from mm.checkpoint.upgrade import FORMAT, upgrade_config
from mm.files import yaml_text

MESSAGE_LENGTH = 400  # maximum number of characters of a message about an untrusted file
logger = logging.getLogger("mm")


class PlainLoader(yaml.SafeLoader):
    """YAML loader of plain data that rejects aliases, with which a few lines could expand to any amount of data."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("it has an alias, which no mm writes")
        return super().compose_node(parent, index)


def write_config(path: Path, config: Mapping[str, Any]) -> None:
    """Write the config.yaml of a model directory."""
    (path / "config.yaml").write_text(yaml_text(to_plain(config)), encoding="utf-8")


def read_config(path: Path) -> dict[str, Any]:
    """Read the config.yaml of a model directory and upgrade it to the current format.

    Args:
        path: The model directory.

    Returns:
        The config as plain data. If it was upgraded, the changes are logged.

    Raises:
        ValueError: If `path` is not a model directory, if its config is damaged, or if its format is unknown.
    """
    if (path / "model" / "config.yaml").is_file():
        raise ValueError(f"{path} is a run folder; its model directory is {path / 'model'}")
    for name in ("config.yaml", "model.safetensors"):
        if not (path / name).is_file():
            raise ValueError(f"no model directory at {path}: it has no {name}; a run leaves one as outputs/RUN/model")
    try:
        config = yaml.load((path / "config.yaml").read_text(encoding="utf-8"), PlainLoader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{path / 'config.yaml'}: is no YAML: {reason:.{MESSAGE_LENGTH}}") from None
    if not isinstance(config, dict) or not {"format", "requires", "model", "transforms", "spec"} <= set(config):
        raise ValueError(f"{path / 'config.yaml'}: is not the config of a model directory")
    number = config["format"]
    config, changes = upgrade_config(config)
    if config.get("format") != FORMAT:
        raise ValueError(f"{path}: got format {number}, this mm reads 4 to {FORMAT}; install the mm that wrote it")
    if changes:
        logger.info("%s: read from format %s (now %s): %s", path, number, FORMAT, "; ".join(changes))
    return config


def to_plain(node: Any) -> Any:
    """Convert tuples to lists and paths to strings, which YAML can express safely."""
    if isinstance(node, Mapping):
        return {key: to_plain(value) for key, value in node.items()}
    if isinstance(node, list | tuple):
        return [to_plain(x) for x in node]
    return str(node) if isinstance(node, Path) else node
