"""Functions that evaluation, calibration and retrieval share, to apply a trained model to the rows of a data set."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from mm import checkpoint
from mm.checkpoint import TrainedModel
from mm.data_source import DataSource, check_data_source
from mm.fingerprints import from_tensors, seen_in_training

if TYPE_CHECKING:
    from lightning import LightningModule

SPLITS = ("train", "val", "test")


def open_model(model: TrainedModel | str | Path, allow: Sequence[str] = ()) -> TrainedModel:
    """Return a trained model, loaded from its directory if necessary.

    Args:
        model: The model itself, or the path of its directory.
        allow: Names of further packages whose classes the model directory may use.

    Raises:
        ValueError: If the directory is not a model directory.
    """
    return model if isinstance(model, TrainedModel) else checkpoint.load(model, allow)


def match_data(model: TrainedModel, data: DataSource, labelled: bool) -> DataSource:
    """Return data whose inputs are read with the transforms of a model, and whose targets have the model's classes.

    Args:
        model: A trained model.
        data: The data. It is not changed.
        labelled: Whether the targets of the model's heads are needed.

    Returns:
        The data itself if it is already bound to this model, otherwise a copy.

    Raises:
        ValueError: If the data has none of the model's inputs, lacks the target of a head, or has unknown classes.
    """
    check_data_source(data)
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
    """Count the rows of a split on which a model was trained.

    Args:
        model: A trained model; its directory contains the digests of its training rows.
        data: The data.
        split: A split of the data, or "all".

    Returns:
        The number of such rows and the name of the first one. The number is 0 if the directory has no digests, and for
        the split "train", which is never counted.
    """
    before = from_tensors(model.rows)
    count, first = 0, ""
    for name in ("val", "test") if split == "all" else {split} - {"train"}:
        seen = seen_in_training(before, data.fingerprint, name)
        if seen.any() and not first:
            first = data.row_name(int(np.flatnonzero(data.splits == name)[seen.argmax()]))
        count += int(seen.sum())
    return count, first


def describe_trained_rows(model: TrainedModel, data: DataSource, split: str) -> str:
    """Return a sentence with the number of rows of a split on which the model was trained; "" if there are none.

    Args:
        model: A trained model.
        data: The data.
        split: A split of the data, or "all".
    """
    count, first = trained_rows(model, data, split)
    if not count:
        return ""
    return (
        f"{data.source}: {count} of the {len(data.rows(split))} measured rows were trained on, "
        f"the first: {first}; metrics of these rows do not estimate the accuracy on new data"
    )


def is_training_data(model: TrainedModel, data: DataSource) -> bool:
    """Return whether the test rows of some data are those that the training of a model held out.

    Args:
        model: A trained model; its directory contains the digests of its rows.
        data: The data.
    """
    before, now = (fingerprint.inputs.get("test", {}) for fingerprint in (from_tensors(model.rows), data.fingerprint))
    names = before.keys() & now.keys()
    return bool(names) and all(torch.equal(before[name], now[name]) for name in names)


def count_splits(data: DataSource) -> dict[str, int]:
    """Return the number of rows of each split."""
    return {name: int((data.splits == name).sum()) for name in SPLITS}


def count_faults(data: DataSource) -> dict[str, int]:
    """Return the numbers of rows that could not be read, or were changed, such as `data/truncated/text`."""
    names = [name for _, name in data.notes]
    faulty = {"data/faulty_rows": len({row for row, _ in data.faults})}
    return faulty | {f"data/{name}": names.count(name) for name in sorted(set(names))}


def find_device(name: str | torch.device) -> torch.device:
    """Return the torch device with a name that the user has given.

    Args:
        name: `auto` for the accelerator if there is one and else the CPU, or a torch device such as `cpu`, `cuda` or
            `cuda:1`.

    Raises:
        ValueError: If there is no such device on this machine.
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
    """Evaluate a task on every row of a split in one process, without a progress bar, loggers and checkpoints.

    Args:
        task: The task, which stores the results.
        data: A copy of the data that nothing else uses, since its test loader is replaced.
        split: Name of the split, or "all".
        accelerator: As in `lightning.Trainer`.
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
