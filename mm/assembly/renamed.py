"""Names of earlier versions, in configs that a run or a user has kept."""

from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).parents[1]
MOVED = {
    "mm.tasks.schedule.Schedule": "mm.tasks.optim.schedule.Schedule",
    "mm.tasks.sharding.Sharded": "mm.tasks.distributed.sharding.FSDP2Strategy",
}


def current_name(target: str) -> str:
    """Today's name of a class or a function: `datamodules.digits.X` is `mm.datamodules.digits.X`.

    Args:
        target: A dotted name, as in `_target_`. A user's own module of `datamodules` keeps its name.
    """
    if target in MOVED:
        return MOVED[target]
    parts = target.split(".")
    ours = parts[0] == "datamodules" and len(parts) > 2 and (PACKAGE / "datamodules" / f"{parts[1]}.py").is_file()
    return f"mm.{target}" if ours else target


def rename_targets(node: Any) -> Any:
    """Plain data with today's name of every `_target_`."""
    if isinstance(node, list):
        return [rename_targets(child) for child in node]
    if not isinstance(node, dict):
        return node
    found = {key: rename_targets(child) for key, child in node.items()}
    if isinstance(found.get("_target_"), str):
        found["_target_"] = current_name(found["_target_"])
    return found


def upgrade_run_config(config: dict[str, Any]) -> dict[str, Any]:
    """Return the config of a run folder as this version writes it.

    Earlier versions moved the target codec of each head from `model.heads.NAME.reads` to `datamodule.readers.NAME`.

    Args:
        config: Plain data of the config.yaml of a run folder, which stays as it is.
    """
    data = dict(config.get("datamodule") or {})
    codecs = data.pop("readers", None)
    if codecs is None:
        return config
    model = config["model"]
    heads = {name: {**head, "reads": codecs[name]} if name in codecs else head for name, head in model["heads"].items()}
    return {**config, "datamodule": data, "model": {**model, "heads": heads}}
