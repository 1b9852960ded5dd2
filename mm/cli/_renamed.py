"""Names of earlier versions, in configs that a run or a user has kept."""

from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig

PACKAGE = Path(__file__).parents[1]


def current_name(target: str) -> str:
    """Today's name of a class or a function: `datamodules.digits.X` is `mm.datamodules.digits.X`.

    Args:
        target: A dotted name, as in `_target_`. A user's own module of `datamodules` keeps its name.
    """
    parts = target.split(".")
    ours = parts[0] == "datamodules" and len(parts) > 2 and (PACKAGE / "datamodules" / f"{parts[1]}.py").is_file()
    return f"mm.{target}" if ours else target


def rename_targets(node: Any) -> None:
    """Give every `_target_` of a stored config today's name."""
    if isinstance(node, DictConfig) and not node._is_none():
        for key in list(node):
            child = node._get_node(key)
            if key == "_target_" and isinstance(node[key], str):
                node[key] = current_name(node[key])
            else:
                rename_targets(child)
    elif isinstance(node, ListConfig) and not node._is_none():
        for index in range(len(node)):
            rename_targets(node._get_node(index))
