"""Rows that became several windows, and how the predictions of windows become one per row.

A text or a sound that is too long is cut into windows of equal length; the last one ends where the sequence ends. Every
head merges windows by one rule:

- A window takes part where its inputs have a token. If no window of a row has one, all take part.
- What a head predicts of the pooled vector is averaged over the windows: log-probabilities of classes, log-odds of
  labels, values of a regression. Every window has the same weight.
- What a head predicts of tokens is put side by side, as if the row were one long window. A word that several windows
  have is predicted by the one in which it stands farthest from a cut. Of an answer that several windows have, the
  highest score counts.
- "There is no answer" is one prediction of a window. The window that finds it least likely, by the sum of its two
  logits, decides: one window with the answer is enough.
- A head that writes a text reads the tokens of all windows. Transcripts and boxes are those of the row's first window,
  as only the other inputs of the row have windows there.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from mm.predictions import Prediction
from mm.types import Features


class MergedOutput(NamedTuple):
    """An Output and its Batch, where the windows of a row are one."""

    predictions: dict[str, Prediction]
    fused: Features  # of each row's first window
    targets: dict[str, Tensor]  # of the first window; what has a token axis: of all, side by side, and so in meta
    meta: dict[str, Tensor]
    row: Tensor  # (R,) as in Batch
    first: Tensor  # (R,) index of each row's first window


def first_windows(group: Tensor, count: int) -> Tensor:
    """Of each row, its first window. group: (B,) the row of each window -> (count,)"""
    order = torch.arange(len(group), device=group.device)
    return torch.full((count,), len(group), device=group.device).scatter_reduce(0, group, order, "amin")


def windows_of(features: Mapping[str, Features], part: Sequence[str], row: Tensor) -> tuple[Tensor, Tensor]:
    """Which windows have a token of a part of the inputs, and which count for their row: these, or all if none has.

    row: (B,) of each window -> (B,) bool, (B,) bool
    """
    seen = torch.stack([features[name].mask.any(1) for name in part]).any(0)
    rows, group = row.unique(return_inverse=True)
    some = seen.new_zeros(len(rows), dtype=torch.int).scatter_reduce(0, group, seen.int(), "amax")
    return seen, seen | ~some.bool()[group]


def side_by_side(x: Tensor, group: Tensor, count: int, length: int, fill: float) -> Tensor:
    """Tokens of all windows of a row, one window after the other. (B, T, ...), (B,) -> (count, W length, ...)

    `fill` after the T tokens of each window, and where a row has fewer than the W windows of the longest.
    """
    place = (group.unsqueeze(1) == group).tril(-1).sum(1)  # which of its row's windows each is
    whole = x.new_full((count, int(place.max()) + 1, length, *x.shape[2:]), fill)
    whole[group, place, : x.shape[1]] = x
    return whole.flatten(1, 2)


def directions(unit: Tensor, present: Tensor, row: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of each row the direction of the mean of its windows' unit vectors, zero where absent.

    (B, ..., D), (B, ...) bool, (B,) -> rows (R,) ascending, (R, ..., D), whether any window has it (R, ...)
    """
    rows, group = row.unique(return_inverse=True)
    total = unit.new_zeros(len(rows), *unit.shape[1:]).index_add(0, group, unit)
    seen = present.new_zeros(len(rows), *present.shape[1:], dtype=torch.long).index_add(0, group, present.long())
    return rows, F.normalize(total, dim=-1), seen > 0
