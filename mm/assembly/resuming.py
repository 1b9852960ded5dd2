"""Resumption of a run: the choice of the checkpoint, and the check of settings and data that have changed."""

import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from safetensors.torch import load_file, save_file

from mm.assembly.construct import escape, read_resolved
from mm.assembly.former_configs import upgrade_run_config
from mm.assembly.overrides import parse_override
from mm.assembly.provenance import Provenance, resume_command
from mm.assembly.signatures import with_defaults
from mm.callbacks.periodic_checkpoint import newest_first, usable
from mm.files import shown, whole
from mm.fingerprints import differences, from_tensors
from mm.messages import command, is_first_process, plain, say
from mm.runs.folder import read_overrides
from mm.tasks.distributed.sharding import complete

logger = logging.getLogger("mm")

# Keys of the datamodule that may change when a run is resumed: they change neither the rows nor their order.
FREE = ("batch_size", "max_batch_length", "num_buckets", "num_workers", "on_error", "transforms", "cache")


# Keys that a run may change while it goes on: metrics measure the model, and init_from is read by a new run only.
NOT_RESUMED = re.compile(r"model\.(init_from\b|heads\.\w+\.metrics\b)")
ROWS = "rows.safetensors"  # the digests of the rows of each split, in a run folder


def check_resumable(cfg: DictConfig, folder: Path, datamodule: Any) -> None:
    """Check that a run can be resumed with a config, and print the settings that have changed since it started.

    Args:
        cfg: The current config.
        folder: The run folder, which contains the config of the run's start.
        datamodule: The current data.

    Raises:
        ValueError: If the model, the data (its settings or its rows) or the seed has changed.
    """
    stored = upgrade_run_config(read_resolved(folder / "config.yaml"))
    before, now = map(flatten, (stored, with_defaults(OmegaConf.to_container(cfg, resolve=True))))
    refused: dict[str, list[str]] = {"data": [], "model": []}
    for key in dict.fromkeys([*before, *now]):
        if before.get(key) == now.get(key) or key == "resume" or NOT_RESUMED.match(key):
            continue
        room, _, rest = key.partition(".")
        # A table's columns say which category has which number.
        free = rest.split(".")[0] in FREE and not rest.endswith(".columns")
        change = f"{key} was {before.get(key)}, now it is {now.get(key)}"
        if room in ("model", "peft") or (not free and rest.startswith("transforms.")):
            refused["model"].append(change)
        elif room == "seed" or (room == "datamodule" and not free):
            refused["data"].append(change)
        else:
            say(f"changed since the run began: {change}")
    if not refused["data"]:
        check_rows(datamodule, folder)  # from which the others may follow, such as the counts of classes
    for change in [*refused["data"], *refused["model"]]:
        raise ValueError(
            f"resume=true: {change}; a run keeps its model and its data, and the seed of both: leave it out, or start "
            "another run=NAME"
        )


def save_rows(datamodule: Any, folder: Path) -> None:
    """Save the digests of the rows of each split in the run folder, for resuming the run."""
    with whole(folder / ROWS) as part:
        save_file(datamodule.fingerprint.tensors(), part)


def check_rows(datamodule: Any, folder: Path) -> None:
    """Compare the rows of each split with those at the start of the run.

    Runs of older versions have no digests of their rows, and are not checked.

    Args:
        datamodule: The current data.
        folder: The run folder.

    Raises:
        ValueError: If rows have changed; the message names the splits, the number of rows and the first changed row.
    """
    if not (folder / ROWS).is_file():
        return  # of an older mm; the checkpoint has the digests of the splits, or has none either
    changed = differences(from_tensors(load_file(folder / ROWS)), datamodule.fingerprint, datamodule)
    if changed:
        raise ValueError(
            f"resume=true: the data has changed since the run began: {changed}; a run keeps its data: bring it back as "
            "it was, or start another run=NAME"
        )


def flatten(node: Any, prefix: str = "") -> dict[str, Any]:
    """Return a dictionary from the dotted keys of plain data to their values."""
    if not isinstance(node, dict):
        return {prefix: node}
    found: dict[str, Any] = {}
    for name, child in node.items():
        found |= flatten(child, f"{prefix}.{name}" if prefix else str(name))
    return found


def find_newest_checkpoint(folder: Path) -> str:
    """Return the path of the newest checkpoint in a run folder that is not damaged.

    Raises:
        ValueError: If there is none.
    """
    for path in newest_first(folder / "checkpoints"):
        if complete(path) if path.is_dir() else usable(path):
            say(f"going on from {shown(path)}")
            return str(path)
        if is_first_process():
            logger.warning(plain(f"{shown(path)} is torn or damaged: the one before it is used"))
    raise ValueError(f"resume=true: {shown(folder)} holds no checkpoint yet; start it anew under another run=NAME")


def describe_finished(cfg: DictConfig, folder: Path, provenance: Provenance) -> list[str]:
    """Return the lines to print if the run to resume is already finished; empty for any other run.

    A run counts as finished if the command asks for no longer training.

    Args:
        cfg: The current config.
        folder: The run folder.
        provenance: The current command.

    Raises:
        ValueError: If the run is finished, and the command changes any of its settings.
    """
    if not cfg.resume or not (folder / "metrics.json").exists() or not (folder / "model").is_dir():
        return []
    stored = read_resolved(folder / "config.yaml")
    if any(stored["trainer"][key] != cfg.trainer[key] for key in ("max_epochs", "max_steps", "max_time")):
        return []  # asked to train longer
    if changed := changed_overrides(stored, folder, provenance.typed):
        raise ValueError(
            f"{', '.join(changed)}: the run in {shown(folder)} is finished, and this would change nothing of it; raise "
            "trainer.max_epochs (or max_steps) to go on, or start another run=NAME"
        )
    model = shown(folder / "model")
    return [
        "this run is finished; raise trainer.max_epochs to go on, or evaluate it:",
        f"  {command('mm', 'evaluate', f'checkpoint={model}')} datamodule=...",
        shown(folder),
    ]


def changed_overrides(stored: dict[str, Any], folder: Path, typed: Sequence[str]) -> list[str]:
    """Return the overrides of a command that change a setting of the run in a folder.

    Args:
        stored: Config of the run, as plain data.
        folder: The run folder.
        typed: Flags and overrides of the command.
    """
    config = OmegaConf.create(escape(stored))
    before, changed = read_overrides(folder), []
    for word in typed:
        key, value = parse_override(word)
        if word in before or key in ("resume", "run", "paths.outputs"):
            continue
        node = OmegaConf.select(config, key, throw_on_missing=False) if key and not word.startswith("~") else None
        data = OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node
        if node is None or data != value:
            changed.append(word)
    return changed


def next_commands(
    cfg: DictConfig, folder: Path, provenance: Provenance, measurable: bool, length: str | None = None
) -> list[str]:
    """Return the command lines to suggest to the user after a training run.

    Args:
        cfg: The config of the run.
        folder: The run folder.
        provenance: The command that started the run.
        measurable: Whether the model can be evaluated without further training.
        length: The key of the trainer that ended the training, `max_epochs` or `max_steps`; None: the one that is set,
            or `max_epochs` if both are.
    """
    model = shown(folder / "model")
    length = length or ("max_epochs" if (cfg.trainer.max_epochs or 0) > 0 else "max_steps")
    data = provenance.choices.get("datamodule")
    use = [
        f"{command('mm', 'evaluate', f'checkpoint={model}', f'datamodule={data}')} ..."
        if measurable
        else f"{command('mm', 'train', f'model.init_from={model}')} ..."
    ]
    if cfg.model.heads:
        use += [command("mm", "predict", f"checkpoint={model}", "datamodule=manifest", "datamodule.path=new.csv")]
    longer = f"trainer.{length}={2 * max(1, cfg.trainer[length])}"
    return [*use, resume_command(cfg, folder, provenance, longer)]
