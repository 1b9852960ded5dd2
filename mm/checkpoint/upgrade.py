"""Upgrade of older formats of a model directory to the current one.

Format 5 has the target codecs in the section `target_codecs` (format 4: `readers`), and contains every constructor
argument of a part, including those with their default value.
"""

from typing import Any

from mm.renames import FACTS, upgrade

# Former names of fields of `mm.types.InputData` to current names.
INPUT_FIELDS = {"sizes": "cardinalities"}
FORMAT = 5  # format that this version writes


def upgrade_config(config: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Upgrade the config of a model directory to the current format and the current names.

    Args:
        config: Plain data of config.yaml, which is not changed.

    Returns:
        The upgraded config, and one phrase per change. If the format is unknown, the config is returned unchanged.
    """
    if config.get("format") not in (4, FORMAT):
        return config, []
    changes = ["`readers` is `target_codecs`"] if "readers" in config else []
    upgraded = {("target_codecs" if key == "readers" else key): value for key, value in config.items()}
    renamed: dict[str, str] = {}
    upgraded = _upgrade_inputs(_upgrade_facts(upgrade(upgraded, renamed)))
    changes += [f"`{old}` is `{new}`" for old, new in renamed.items()]
    return {**upgraded, "format": FORMAT}, changes


def _upgrade_inputs(config: dict[str, Any]) -> dict[str, Any]:
    """Return the config with the current names of the fields of its inputs."""
    spec = config.get("spec")
    inputs = spec.get("inputs") if isinstance(spec, dict) else None
    if not isinstance(spec, dict) or not isinstance(inputs, dict):
        return config
    upgraded = {
        name: {INPUT_FIELDS.get(key, key): value for key, value in data.items()} if isinstance(data, dict) else data
        for name, data in inputs.items()
    }
    return {**config, "spec": {**spec, "inputs": upgraded}}


def _upgrade_facts(config: dict[str, Any]) -> dict[str, Any]:
    """Return the config with the current names of the fields of its text targets."""
    spec = config.get("spec")
    targets = spec.get("targets") if isinstance(spec, dict) else None
    if not isinstance(spec, dict) or not isinstance(targets, dict):
        return config
    upgraded = {
        name: {**target, "facts": {FACTS.get(key, key): value for key, value in target["facts"].items()}}
        if isinstance(target, dict) and target.get("kind") == "text" and isinstance(target.get("facts"), dict)
        else target
        for name, target in targets.items()
    }
    return {**config, "spec": {**spec, "targets": upgraded}}
