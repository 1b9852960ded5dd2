"""Digests of the content of inputs, by which retrieval treats rows with the same content as one item."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mm.types import Batch, Features

ODD = (-7046029254386353131, -4658895280553007687, -7723592293110705685)  # multipliers of splitmix64, as int64


def content(batch: Batch, sides: Sequence[Sequence[str]]) -> tuple[Tensor, Tensor]:
    """Compute a 64-bit digest of the content of each row, as the encoders read it. Padding has no influence.

    Args:
        batch: Windows of rows.
        sides: The compared groups of inputs.

    Returns:
        The indices of the rows, ascending, (R,) int64, without rows that only even out batches; and the digest of each
        group, (R, N) int64.
    """
    rows, group = batch.row.unique(return_inverse=True)
    parts = {name: of_rows(of_windows(x, batch.masks[name]), batch.masks[name].any(1), group, len(rows))
             for name, x in batch.inputs.items() if any(name in side for side in sides)}  # fmt: skip
    found = [torch.stack([mix(parts[name] + i) for i, name in enumerate(side)]).sum(0) for side in sides]
    return rows[rows >= 0], torch.stack(found, 1)[rows >= 0]


def of_windows(x: Any, mask: Tensor) -> Tensor:
    """Compute the digest of each window of an input.

    Args:
        x: The input, as in Batch.
        mask: Mask of the input, (B, T).

    Returns:
        Digests, (B,) int64.
    """
    x = x.tokens if isinstance(x, Features) else x
    bits = x.float().contiguous().view(torch.int32).long() if x.is_floating_point() else x.long()
    timed = bits.shape[1] == mask.shape[1]
    bits = bits.flatten(2) if bits.dim() > 2 else bits.unsqueeze(2)
    place = torch.arange(bits[0].numel(), device=bits.device).view(bits.shape[1:])
    each = mix(mix(bits) + place * ODD[0])
    there = mask[:, :, None] if timed else mask.any(1)[:, None, None]
    return torch.where(there, each, 0).sum((1, 2))


def of_rows(digest: Tensor, present: Tensor, group: Tensor, count: int) -> Tensor:
    """Combine the digests of the windows of each row.

    An input with one window is repeated in every window of another input, but counts once.

    Args:
        digest: Digest of each window, (B,).
        present: Whether each window has the input, (B,) bool.
        group: Index of the row of each window, (B,).
        count: Number of rows.
    """
    limit = torch.iinfo(torch.long)
    empty = digest.new_zeros(count)
    highest, lowest = (
        empty.scatter_reduce(0, group, digest.where(present, fill), how, include_self=False)
        for how, fill in (("amax", limit.min), ("amin", limit.max))
    )
    total = empty.index_add(0, group, digest.where(present, 0))
    return torch.where(highest == lowest, highest, total)


def mix(x: Tensor) -> Tensor:
    """Hash int64 values, such that every bit influences all 64 bits. Overflow wraps around."""
    x = (x ^ (x >> 30)) * ODD[1]
    x = (x ^ (x >> 27)) * ODD[2]
    return x ^ (x >> 31)
