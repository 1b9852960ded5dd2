"""Classes told from a few rows each: by the nearest of their means (prototypes, Snell 2017)."""

from collections.abc import Sequence

import numpy as np


def draw(label: np.ndarray, seed: Sequence[int]) -> list[np.ndarray]:
    """(N,) class of each row -> of every class its rows in random order, of which the first k are k shots."""
    rng = np.random.default_rng(list(seed))
    return [rng.permutation(np.flatnonzero(label == c)) for c in np.unique(label)]


def prototypes(vectors: np.ndarray, label: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean of each class's rows. (N, D), (N,) -> (C, D), and the classes (C,)"""
    classes, of = np.unique(label, return_inverse=True)
    total = np.zeros((len(classes), vectors.shape[1]))
    np.add.at(total, of, vectors)
    return total / np.bincount(of)[:, None], classes


def nearest(vectors: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Which centre has the least Euclidean distance. (R, D), (C, D) -> (R,)"""
    return ((centres**2).sum(1) - 2 * vectors @ centres.T).argmin(1)
