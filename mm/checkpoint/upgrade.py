"""Older formats of a model directory, upgraded step by step to the current one.

Format 5 names the target codecs `target_codecs` (`readers` before), and holds every constructor argument of a part,
also those that were left at their defaults.
"""

from typing import Any

from mm.renames import upgrade

# Former field of `mm.types.InputData` -> the current one.
INPUT_FIELDS = {"sizes": "cardinalities"}
FORMAT = 5  # of the directories that this version writes


def upgrade_config(config: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Upgrade the config of a model directory to the current format and the current names.

    Args:
        config: Plain data of a config.yaml, which stays as it is.

    Returns:
        The upgraded config and one sentence for each change; the same config and no sentence where its format is
        unknown.
    """
    if config.get("format") not in (4, FORMAT):
        return config, []
    changes = ["`readers` is `target_codecs`"] if "readers" in config else []
    upgraded = {("target_codecs" if key == "readers" else key): value for key, value in config.items()}
    renamed: dict[str, str] = {}
    upgraded = upgrade(upgraded, renamed)
    inputs = upgraded.get("spec", {}).get("inputs", {})
    upgraded["spec"] = {
        **upgraded.get("spec", {}),
        "inputs": {name: upgrade_input(data) for name, data in inputs.items()},
    }
    changes += [f"`{old}` is `{new}`" for old, new in renamed.items()]
    return {**upgraded, "format": FORMAT}, changes


def upgrade_input(data: Any) -> Any:
    """Return the fields of an input of the data with their current names."""
    return {INPUT_FIELDS.get(key, key): value for key, value in data.items()} if isinstance(data, dict) else data
