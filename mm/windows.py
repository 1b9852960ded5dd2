"""Rows that were split into several windows, and how the predictions of windows are merged into one per row.

A text or a sound that is too long is split into windows of equal length; the last window ends where the sequence ends.
All heads merge windows by the same rules:

- A window counts if its inputs have a token. If no window of a row has one, all count.
- Predictions from the pooled vector are averaged over the windows: log-probabilities of classes, log-odds of labels,
  values of a regression. All windows have the same weight.
- Predictions of tokens are concatenated, as if the row were one long window. A word that several windows contain is
  predicted by the window in which it is farthest from a cut. If several windows contain an answer, its highest score
  counts.
- "There is no answer" is one prediction per window. The window in which it is least likely, by the sum of its two
  logits, decides: one window with the answer is enough.
- A generative head reads the tokens of all windows. Transcripts and boxes are those of the first window of the row,
  because only the other inputs of the row have several windows in this case.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from mm.predictions import Prediction
from mm.types import Features


class MergedOutput(NamedTuple):
    """An Output and its Batch in which the windows of each row are merged."""

    predictions: dict[str, Prediction]
    fused: Features  # those of the first window of each row
    targets: dict[str, Tensor]  # of the first window; those per token are concatenated over all windows, as in meta
    meta: dict[str, Tensor]
    row: Tensor  # (R,) as in Batch
    first: Tensor  # (R,) index of each row's first window


def first_windows(group: Tensor, count: int) -> Tensor:
    """Return the index of the first window of each row.

    Args:
        group: Index of the row of each window, (B,).
        count: Number of rows.

    Returns:
        Indices, (count,).
    """
    order = torch.arange(len(group), device=group.device)
    return torch.full((count,), len(group), device=group.device).scatter_reduce(0, group, order, "amin")


def windows_of(features: Mapping[str, Features], part: Sequence[str], row: Tensor) -> tuple[Tensor, Tensor]:
    """Return which windows have a token of some inputs, and which count for their row: these, or all if none has.

    Args:
        features: Input name to Features.
        part: Names of the inputs.
        row: Row of each window, (B,).

    Returns:
        Both as (B,) bool.
    """
    seen = torch.stack([features[name].mask.any(1) for name in part]).any(0)
    rows, group = row.unique(return_inverse=True)
    some = seen.new_zeros(len(rows), dtype=torch.int).scatter_reduce(0, group, seen.int(), "amax")
    return seen, seen | ~some.bool()[group]


def side_by_side(x: Tensor, group: Tensor, count: int, length: int, fill: float) -> Tensor:
    """Concatenate the tokens of all windows of each row.

    Args:
        x: Tokens of each window, (B, T, ...).
        group: Index of the row of each window, (B,).
        count: Number of rows.
        length: Length to which each window is padded, at least T.
        fill: Value of the padding, after each window and for rows with fewer than the maximum number W of windows.

    Returns:
        Tokens of each row, (count, W * length, ...).
    """
    place = (group.unsqueeze(1) == group).tril(-1).sum(1)  # index of each window among those of its row
    whole = x.new_full((count, int(place.max()) + 1, length, *x.shape[2:]), fill)
    whole[group, place, : x.shape[1]] = x
    return whole.flatten(1, 2)


def directions(unit: Tensor, present: Tensor, row: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the normalised mean of the unit vectors of each row's windows, which is zero if the row is absent.

    Args:
        unit: Unit vectors of the windows, (B, ..., D).
        present: Whether each window has the input, (B, ...) bool.
        row: Row of each window, (B,).

    Returns:
        The rows in ascending order (R,), their vectors (R, ..., D), and whether any of their windows has the input (R,
        ...).
    """
    rows, group = row.unique(return_inverse=True)
    total = unit.new_zeros(len(rows), *unit.shape[1:]).index_add(0, group, unit)
    seen = present.new_zeros(len(rows), *present.shape[1:], dtype=torch.long).index_add(0, group, present.long())
    return rows, F.normalize(total, dim=-1), seen > 0
