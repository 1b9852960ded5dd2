"""A run that goes on: from which checkpoint, and what may have changed."""

import re
import sys
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from safetensors.torch import load_file, save_file

from mm.assembly.construct import read_resolved
from mm.assembly.renamed import upgrade_run_config
from mm.assembly.signatures import with_defaults
from mm.callbacks.periodic_checkpoint import newest_first, usable
from mm.cli._app import shown
from mm.files import whole
from mm.fingerprints import differences, from_tensors
from mm.messages import is_first_process, plain
from mm.tasks.distributed.sharding import complete

# Of the datamodule, what may change while a run goes on: how rows are fed, not which they are, nor their order.
FREE = ("batch_size", "max_batch_length", "num_buckets", "num_workers", "on_error", "transforms", "cache")


# Keys that a run may change while it goes on: metrics measure the model, and init_from is read by a new run only.
NOT_RESUMED = re.compile(r"model\.(init_from\b|heads\.\w+\.metrics\b)")
ROWS = "rows.safetensors"  # the digests of the rows of each split, in a run folder


def check(cfg: DictConfig, folder: Path, datamodule: Any) -> None:
    """Print what has changed since the run was started.

    Args:
        cfg: The config as it is now.
        folder: The run folder, which has that of before.
        datamodule: The data as it is now.

    Raises:
        ValueError: If its model, its data, be it their settings or their rows, or its seed have changed.
    """
    stored = upgrade_run_config(read_resolved(folder / "config.yaml"))
    before, now = map(flat, (stored, with_defaults(OmegaConf.to_container(cfg, resolve=True))))
    refused: dict[str, list[str]] = {"data": [], "model": []}
    for key in dict.fromkeys([*before, *now]):
        if before.get(key) == now.get(key) or key == "resume" or NOT_RESUMED.match(key):
            continue
        room, _, rest = key.partition(".")
        # A table's columns say which category has which number.
        free = rest.split(".")[0] in FREE and not rest.endswith(".columns")
        told = f"{key} was {before.get(key)}, now it is {now.get(key)}"
        if room in ("model", "peft") or (not free and rest.startswith("transforms.")):
            refused["model"].append(told)
        elif room == "seed" or (room == "datamodule" and not free):
            refused["data"].append(told)
        else:
            print(plain(f"changed since the run began: {told}"))
    if not refused["data"]:
        check_rows(datamodule, folder)  # from which the others may follow, such as the counts of classes
    for told in [*refused["data"], *refused["model"]]:
        raise ValueError(
            f"resume=true: {told}; a run keeps its model and its data, and the seed of both: leave it out, or start "
            "another run=NAME"
        )


def keep_rows(datamodule: Any, folder: Path) -> None:
    """Keep which rows each split has, for a run that goes on and for the model directory."""
    with whole(folder / ROWS) as part:
        save_file(datamodule.fingerprint.tensors(), part)


def check_rows(datamodule: Any, folder: Path) -> None:
    """Compare the rows of each split with those that the run was started on.

    Raises:
        ValueError: If they have changed; the message says which splits, how many rows and the first of them.
    """
    if not (folder / ROWS).is_file():
        return  # of an older mm; the checkpoint has the digests of the splits, or has none either
    changed = differences(from_tensors(load_file(folder / ROWS)), datamodule.fingerprint, datamodule)
    if changed:
        raise ValueError(
            f"resume=true: the data has changed since the run began: {changed}; a run keeps its data: bring it back as "
            "it was, or start another run=NAME"
        )


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
