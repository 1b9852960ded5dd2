"""A run that goes on: from which checkpoint, and what may have changed."""

import sys
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from mm.callbacks.resumable import newest_first, usable
from mm.cli._app import shown
from mm.cli._renamed import rename_targets
from mm.messages import is_first_process
from mm.tasks.sharding import complete

# Of the datamodule, what may change while a run goes on: how rows are fed, not which they are, nor their order.
FREE = ("batch_size", "budget", "buckets", "num_workers", "on_error", "transforms", "cache")


def check(cfg: DictConfig, folder: Path) -> None:
    """Say what has changed since the run was started. Errors: ValueError where that is its model, data or seed."""
    stored = OmegaConf.load(folder / "config.yaml")
    rename_targets(stored)
    before, now = (flat(OmegaConf.to_container(c, resolve=True)) for c in (stored, cfg))
    for key in dict.fromkeys([*before, *now]):
        if before.get(key) == now.get(key) or key == "resume":
            continue
        room, _, rest = key.partition(".")
        # A table's columns say which category has which number.
        free = rest.split(".")[0] in FREE and not rest.endswith(".columns")
        if room in ("model", "peft", "seed") or (room == "datamodule" and not free):
            raise ValueError(
                f"resume=true: {key} was {before.get(key)}, now it is {now.get(key)}; a run keeps its model and its "
                "data, and the seed of both: leave it out, or start another run=NAME"
            )
        print(f"changed since the run began: {key} was {before.get(key)}, now it is {now.get(key)}")


def flat(node: Any, prefix: str = "") -> dict[str, Any]:
    """Dotted keys of plain data -> values."""
    if not isinstance(node, dict):
        return {prefix: node}
    found: dict[str, Any] = {}
    for name, child in node.items():
        found |= flat(child, f"{prefix}.{name}" if prefix else str(name))
    return found


def newest(folder: Path) -> str:
    """The run folder's newest checkpoint that is whole. Errors: ValueError where there is none."""
    for path in newest_first(folder / "checkpoints"):
        if complete(path) if path.is_dir() else usable(path):
            if is_first_process():
                print(f"going on from {shown(path)}")
            return str(path)
        if is_first_process():
            print(f"{shown(path)} is torn or damaged: the one before it is used", file=sys.stderr)
    raise ValueError(f"resume=true: {shown(folder)} holds no checkpoint yet; start it anew under another run=NAME")
