"""Features of tabular inputs and of plain vectors: a row of numbers for each row of the data."""

from collections.abc import Sequence

import numpy as np
import torch

from mm.types import ColumnData, Features

MOST_CATEGORIES = 254  # per column; gradient boosting of scikit-learn takes 255, and one is for all other categories
MOST_ELEMENTS = 100  # elements of the lists of a column that are counted


def table_features(
    rows: Sequence[torch.Tensor], columns: Sequence[ColumnData], train: np.ndarray
) -> tuple[np.ndarray, list[int]]:
    """Return the cells of a tabular input as numbers.

    A number is a feature; a category is its class index, 0 for rare ones; a list is the count of each of its frequent
    elements. An empty cell is NaN.

    Args:
        rows: Tokens of each row (T, 3): index of the column, class index, number; see `TabularTransform`.
        columns: The columns.
        train: Whether each row is a training row, (N,) bool; categories and elements are counted in these rows.

    Returns:
        Features (N, D) float32, and the indices of those that are categories.
    """
    row = np.repeat(np.arange(len(rows)), [len(tokens) for tokens in rows])
    tokens = torch.cat(list(rows)).numpy() if rows else np.zeros((0, 3))
    place, index = tokens[:, 0].astype(int), tokens[:, 1].astype(int)
    parts: list[np.ndarray] = []
    categories: list[int] = []
    for number, column in enumerate(columns):
        mine = place == number
        counted = mine & train[row]
        if column.kind == "list":
            frequent = most_frequent(index[counted], len(column.classes), MOST_ELEMENTS)
            counts = np.zeros((len(rows), len(frequent)), dtype=np.float32)
            position = np.full(len(column.classes) + 1, -1)
            position[frequent] = np.arange(len(frequent))
            known = mine & (position[index * mine] >= 0)
            np.add.at(counts, (row[known], position[index[known]]), 1)
            parts.append(counts)
            continue
        values = np.full((len(rows), 1), np.nan, dtype=np.float32)
        if column.kind == "number":
            values[row[mine], 0] = tokens[mine, 2]
        else:
            categories.append(sum(part.shape[1] for part in parts))
            frequent = most_frequent(index[counted], len(column.classes), MOST_CATEGORIES)
            current = np.zeros(len(column.classes) + 1)
            current[frequent] = np.arange(1, len(frequent) + 1)
            values[row[mine], 0] = current[index[mine]]
        parts.append(values)
    return np.concatenate(parts, axis=1), categories


def most_frequent(index: np.ndarray, count: int, most: int) -> np.ndarray:
    """Return the most frequent classes, at most `most` of them, the most frequent first.

    Args:
        index: Class indices from 1, (N,); 0, any other class, is left out.
        count: Number of classes.
        most: Maximum number of classes to return.
    """
    return np.argsort(-np.bincount(index, minlength=count + 1)[1:], kind="stable")[:most] + 1


def sequence_statistics(value: torch.Tensor | Features, by_step: bool) -> np.ndarray:
    """Return a vector for any encoded input: its pooled vector, its values, or their statistics over time.

    Args:
        value: Features of one row, or a tensor (T,) or (T, ...).
        by_step: Whether inputs have different lengths, so that only statistics have the same length for all.
    """
    if isinstance(value, Features):
        return value.pooled.float().numpy()
    steps = value.float().flatten(1) if value.dim() > 1 else value.float().unsqueeze(1)  # (T, D)
    if not by_step:
        return steps.flatten().numpy()
    return torch.cat([steps.mean(0), steps.std(0, correction=0), steps.amin(0), steps.amax(0)]).numpy()
