"""What evaluation, calibration and retrieval share: a trained model over the rows of a data set."""

from collections.abc import Mapping, Sequence
from copy import copy
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from mm import checkpoint
from mm.checkpoint import LoadedModel
from mm.datamodules.fingerprint import Fingerprint, from_tensors, seen_in_training
from mm.types import Batch, Transform

SPLITS = ("train", "val", "test")


class DataSource(Protocol):
    """What these functions read of data; every `DataModule` is one."""

    transforms: dict[str, Transform]
    stored: dict[str, Transform]
    faults: dict[tuple[int, str], str]
    long: set[tuple[int, str]]

    @property
    def table(self) -> Any: ...

    @property
    def fingerprint(self) -> Fingerprint: ...

    def use(self, transforms: Mapping[str, Transform]) -> None: ...

    def rows(self, split: str) -> np.ndarray: ...

    def loader(self, split: str) -> Any: ...

    def finish(self, batch: Batch) -> Batch: ...

    def truth(self, name: str, row: int) -> Any: ...

    def write_errors(self, path: Path) -> None: ...


def open_model(model: LoadedModel | str | Path, allow: Sequence[str] = ()) -> LoadedModel:
    """Return a trained model.

    Args:
        model: The model itself, or the path of its directory.
        allow: Further packages whose classes the directory may name.

    Raises:
        ValueError: If the directory is no model directory.
    """
    return model if isinstance(model, LoadedModel) else checkpoint.load(model, allow)


def match_data(model: LoadedModel, data: DataSource, labelled: bool) -> DataSource:
    """Return data whose inputs are read by a model's own transforms.

    Args:
        model: A trained model.
        data: Rows of its inputs. It is not changed.
        labelled: Whether the targets of the model's heads are needed.

    Returns:
        The data itself where it has the model's transforms, else a copy that has them. The copy shares its rows and
        its list of faults.

    Raises:
        ValueError: If the data has none of the model's inputs, lacks a head's target, or has other classes.
    """
    spec, source = data.table.spec, data.table.source
    if not set(model.transforms) & set(spec.inputs):
        raise ValueError(f"{source}: has {', '.join(spec.inputs)}, but the model reads {', '.join(model.transforms)}")
    for name in model.model.heads if labelled else ():
        if name not in data.table.targets:
            raise ValueError(f"{source}: has no target '{name}', which the model predicts; name its column")
        found, known = spec.targets[name], model.spec.targets[name]
        if (found.kind, found.classes) != (known.kind, known.classes):
            raise ValueError(
                f"{source}: the classes of '{name}' are not those of the model; build the data with "
                "readers=model.readers and known=model.spec.targets"
            )
    if all(data.transforms.get(name) is transform for name, transform in model.transforms.items()):
        return data
    matched = copy(data)
    matched.use(model.transforms)
    return matched


def trained_rows(model: LoadedModel, data: DataSource, split: str) -> tuple[int, str]:
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
            first = data.table.name(int(np.flatnonzero(data.table.split == name)[seen.argmax()]))
        count += int(seen.sum())
    return count, first


def count_splits(data: DataSource) -> dict[str, int]:
    """Return the number of rows of each split."""
    return {name: int((data.table.split == name).sum()) for name in SPLITS}


def count_faults(data: DataSource) -> dict[str, int]:
    """Return how many rows could not be read, and how many were changed, such as `data/cut/text`."""
    names = [name for _, name in data.long]
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
