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

from mm.batching import PER_ROW_META
from mm.predictions import Prediction
from mm.tensors import pick, unlabelled_value
from mm.types import Batch, Features, Output


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


def merge_windows(output: Output, batch: Batch, inputs: Mapping[str, str | None]) -> MergedOutput:
    """Merge the predictions of windows into one prediction per row, by the rules at the top of this file.

    The rows are sorted by their index. If every row has one window, the rows stay in their order.

    Args:
        output: Output for the batch.
        batch: The batch.
        inputs: Head name to the input for whose tokens the head predicts; None: it predicts per row.
    """
    row, predictions = batch.row, output.predictions
    first = torch.arange(len(row), device=row.device)
    rows, group = row.unique(return_inverse=True)
    if len(rows) == len(row):
        return MergedOutput(dict(predictions), output.fused, batch.targets, batch.meta, row, first)
    first = first_windows(group, len(rows))
    with torch.autocast(row.device.type, enabled=False):  # autocast would round means to three digits
        merged = {name: merge_head(name, output, inputs[name], group, len(rows)) for name in predictions}

    def joined(x: Tensor, of: str | None, fill: float) -> Tensor:
        """Join the windows of each row; `of` is the input whose tokens have the values, None: a row has one."""
        if of is None:
            return x[first]
        tokens = output.features.get(of, output.fused).tokens.shape[1]
        return side_by_side(x, group, len(rows), max(x.shape[1], tokens), fill)

    # A target without a head, such as the label by which contrastive learning excludes pairs, belongs to the row.
    targets = {name: joined(x, inputs.get(name), unlabelled_value(x)) for name, x in batch.targets.items()}
    parts = {key: key.rpartition("/") for key in batch.meta}
    owners = {key: None if what in PER_ROW_META else name for key, (name, _, what) in parts.items()}
    meta = {key: joined(x, owners[key], -1) for key, x in batch.meta.items()}
    return MergedOutput(merged, pick(output.fused, first), targets, meta, rows, first)


def merge_head(name: str, output: Output, input: str | None, group: Tensor, count: int) -> Prediction:
    """Merge the predictions of one head for several windows.

    A head on the pooled vector uses only windows with tokens. A head on the tokens of an input uses all windows, so
    that the tokens stay aligned with their targets, and ignores padding itself.

    Args:
        name: Name of the head.
        output: Output for the windows.
        input: Input for whose tokens the head predicts; None: it predicts per row.
        group: Index of the row that each window belongs to, (B,).
        count: Number of rows.
    """
    prediction = output.predictions[name]
    if input is not None:
        return prediction.merge(group, count)
    _, counts = windows_of(output.features or {"": output.fused}, [*output.features] or [""], group)
    return pick(prediction, counts).merge(group[counts], count)
