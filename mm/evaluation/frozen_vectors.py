"""Vectors from a model's frozen encoders for the rows of a split."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mm.checkpoint import to_device
from mm.data_source import DataSource
from mm.model import MultimodalModel
from mm.windows import directions


class FrozenVectors(NamedTuple):
    """Unit vectors of the R rows of a split.

    Attributes:
        vectors: Input name to vectors, (R, D), with zeros if the input is absent; D may differ between inputs.
        present: Input name to whether each row has it, (R,) bool.
        row: Indices of the rows, (R,).
    """

    vectors: dict[str, np.ndarray]
    present: dict[str, np.ndarray]
    row: np.ndarray


class LabelledVectors(NamedTuple):
    """The N rows that have a label and at least one of some inputs.

    Attributes:
        x: Concatenated vectors of the inputs, (N, D).
        label: Class index of each row, (N,).
    """

    x: np.ndarray
    label: np.ndarray


@torch.inference_mode()
def extract_embeddings(
    model: MultimodalModel,
    data: DataSource,
    split: str,
    precision: Callable[[], AbstractContextManager[object]] = nullcontext,
) -> FrozenVectors:
    """Return the unit vector that each encoder computes for each row, before projection.

    Args:
        model: The model.
        data: Data with the transforms of the model.
        split: Split of the rows.
        precision: As in `probe`.

    Returns:
        Vectors by input; for a row of several windows, the normalised mean of their unit vectors.
    """
    from tqdm import tqdm

    device = next(model.parameters()).device
    units: dict[str, list[Tensor]] = {name: [] for name in model.inputs}
    there: dict[str, list[Tensor]] = {name: [] for name in model.inputs}
    rows: list[Tensor] = []
    for raw in tqdm(data.loader(split), desc=f"vectors of {split}", leave=False, disable=None):
        batch = data.finish(to_device(raw, device))
        for name in model.inputs:
            with precision():
                f = model.encoders[model.shared_encoders.get(name, name)](batch.inputs[name], batch.masks[name])  # type: ignore[arg-type]
            present = f.mask.any(1) & (batch.row >= 0)
            units[name].append((F.normalize(f.pooled.float(), dim=-1) * present.unsqueeze(1)).cpu())
            there[name].append(present.cpu())
        rows.append(batch.row.cpu())
    row = torch.cat(rows)
    merged = {name: directions(torch.cat(x), torch.cat(there[name]), row) for name, x in units.items()}
    return FrozenVectors(
        {name: unit.numpy() for name, (_, unit, _) in merged.items()},
        {name: present.numpy() for name, (_, _, present) in merged.items()},
        row.unique().numpy(),
    )


def from_aligned(embedded: tuple[Tensor, Tensor, Tensor], inputs: Sequence[str]) -> FrozenVectors:
    """Convert the vectors of a contrastive task's last test: (R, N, D), presence (R, N) and row (R,)."""
    vectors, present, row = (x.numpy() for x in embedded)
    by_input = {name: vectors[:, i] for i, name in enumerate(inputs)}
    return FrozenVectors(by_input, {name: present[:, i] for i, name in enumerate(inputs)}, row)


def select_labelled(frozen: FrozenVectors, inputs: Sequence[str], truth: np.ndarray) -> LabelledVectors:
    """Select the rows that have a label and at least one of some inputs.

    Args:
        frozen: The vectors.
        inputs: Names of the inputs.
        truth: Class index of every row of the data, below 0 if it is unlabelled.
    """
    label = truth[frozen.row]
    rows = np.stack([frozen.present[name] for name in inputs]).any(0) & (label >= 0) & (frozen.row >= 0)
    x = np.concatenate([frozen.vectors[name][rows] for name in inputs], 1).astype(np.float64)
    return LabelledVectors(x, label[rows])
