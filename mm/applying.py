"""What evaluation, calibration and retrieval share: a trained model over the rows of a data set."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from mm import checkpoint
from mm.checkpoint import TrainedModel
from mm.data_source import DataSource
from mm.fingerprints import from_tensors, seen_in_training

if TYPE_CHECKING:
    from lightning import LightningModule

SPLITS = ("train", "val", "test")


def open_model(model: TrainedModel | str | Path, allow: Sequence[str] = ()) -> TrainedModel:
    """Return a trained model.

    Args:
        model: The model itself, or the path of its directory.
        allow: Further packages whose classes the directory may name.

    Raises:
        ValueError: If the directory is no model directory.
    """
    return model if isinstance(model, TrainedModel) else checkpoint.load(model, allow)


def match_data(model: TrainedModel, data: DataSource, labelled: bool) -> DataSource:
    """Return data whose inputs are read by a model's own transforms, and whose targets have its classes.

    Args:
        model: A trained model.
        data: Rows of its inputs. It is not changed.
        labelled: Whether the targets of the model's heads are needed.

    Returns:
        The data itself where it is of this model already, else a copy.

    Raises:
        ValueError: If the data has none of the model's inputs, lacks a head's target, or has unknown classes.
    """
    if not set(model.transforms) & set(data.spec.inputs):
        raise ValueError(
            f"{data.source}: has {', '.join(data.spec.inputs)}, but the model reads {', '.join(model.transforms)}"
        )
    same_classes = True
    for name in model.model.heads if labelled else ():
        if name not in data.spec.targets:
            raise ValueError(f"{data.source}: has no target '{name}', which the model predicts; name its column")
        found, known = data.spec.targets[name], model.spec.targets[name]
        same_classes &= (found.kind, found.classes) == (known.kind, known.classes)
    if not same_classes:
        return data.bind(model.transforms, model.spec, model.target_codecs)
    if all(data.transforms.get(name) is transform for name, transform in model.transforms.items()):
        return data
    return data.bind(model.transforms)


def trained_rows(model: TrainedModel, data: DataSource, split: str) -> tuple[int, str]:
    """Count the rows of a split that a model was trained on.

    Args:
        model: A model whose directory keeps the digests of its rows.
        data: The data.
        split: A split of the data, or "all".

    Returns:
        Their number and the name of the first; 0 where the directory keeps no digests, and of the split `train`.
    """
    before = from_tensors(model.rows)
    count, first = 0, ""
    for name in ("val", "test") if split == "all" else {split} - {"train"}:
        seen = seen_in_training(before, data.fingerprint, name)
        if seen.any() and not first:
            first = data.row_name(int(np.flatnonzero(data.splits == name)[seen.argmax()]))
        count += int(seen.sum())
    return count, first


def count_splits(data: DataSource) -> dict[str, int]:
    """Return the number of rows of each split."""
    return {name: int((data.splits == name).sum()) for name in SPLITS}


def count_faults(data: DataSource) -> dict[str, int]:
    """Return how many rows could not be read, and how many were changed, such as `data/truncated/text`."""
    names = [name for _, name in data.notes]
    faulty = {"data/faulty_rows": len({row for row, _ in data.faults})}
    return faulty | {f"data/{name}": names.count(name) for name in sorted(set(names))}


def find_device(name: str | torch.device) -> torch.device:
    """Return the device that a user names.

    Args:
        name: `auto` for the accelerator where there is one, or a torch device such as `cpu`, `cuda` or `cuda:1`.

    Raises:
        ValueError: If it is none, or none of this machine's.
    """
    if name == "auto":
        return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"device: got '{name}', wanted auto, cpu or a device of this machine ({reason})") from None
    return device


def measure_silently(task: "LightningModule", data: Any, split: str, accelerator: str, folder: Path) -> None:
    """Pass every row of a split through a task in one process, without a progress bar, loggers and checkpoints.

    Args:
        task: The task, which holds the results afterwards.
        data: A copy of the data that nothing else uses; its test loader is replaced.
        split: The split, or "all".
        accelerator: As `lightning.Trainer` has it.
        folder: Folder for temporary files.
    """
    from lightning import Trainer

    trainer = Trainer(
        accelerator=accelerator,
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        default_root_dir=folder,
    )
    data.test_dataloader = lambda: data.loader(split)
    trainer.test(task, datamodule=data, verbose=False)
