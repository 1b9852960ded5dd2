"""Older formats of a model directory, upgraded step by step to the current one.

Format 5 names the target codecs `target_codecs` (`readers` before), and holds every constructor argument of a part,
also those that were left at their defaults.
"""

from typing import Any

FORMAT = 5  # of the directories that this version writes

# Module of a class in an older format -> its module now.
MOVED_MODULES: dict[str, str] = {}


def upgrade_config(config: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Upgrade the config of a model directory to the current format.

    Args:
        config: Plain data of a config.yaml, which stays as it is.

    Returns:
        The upgraded config and one sentence for each change; the same config and no sentence where its format is
        current or unknown.
    """
    if config.get("format") != 4:
        return config, []
    upgraded = {("target_codecs" if key == "readers" else key): value for key, value in config.items()}
    changes = ["`readers` is `target_codecs`"] if "readers" in config else []
    renamed: dict[str, str] = {}
    upgraded = rename_classes(upgraded, renamed)
    changes += [f"{old} is {new}" for old, new in renamed.items()]
    return {**upgraded, "format": FORMAT}, changes


def rename_classes(node: Any, renamed: dict[str, str]) -> Any:
    """Return plain data with the current name of every `_target_`.

    Args:
        node: Plain data.
        renamed: Receives the old and the new name of each class that has moved.
    """
    if isinstance(node, list):
        return [rename_classes(child, renamed) for child in node]
    if not isinstance(node, dict):
        return node
    changed = {key: rename_classes(child, renamed) for key, child in node.items()}
    target = changed.get("_target_")
    if isinstance(target, str):
        module, _, name = target.rpartition(".")
        if module in MOVED_MODULES:
            changed["_target_"] = renamed[target] = f"{MOVED_MODULES[module]}.{name}"
    return changed
