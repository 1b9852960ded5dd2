"""Rows that became several windows: which is the first, which tell, what they say together."""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from mm.types import Features


def first_windows(group: Tensor, count: int) -> Tensor:
    """Of each row, its first window. group: (B,) the row of each window -> (count,)"""
    order = torch.arange(len(group), device=group.device)
    return torch.full((count,), len(group), device=group.device).scatter_reduce(0, group, order, "amin")


def windows_of(features: Mapping[str, Features], part: Sequence[str], row: Tensor) -> tuple[Tensor, Tensor]:
    """Which windows have some of a part of the inputs, and which tell of their row by it: these, or all if none has.

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
