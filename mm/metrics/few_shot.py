"""Few-shot classification of rows by the nearest class mean (prototypical networks, Snell et al. 2017)."""

from collections.abc import Sequence

import numpy as np


def draw(label: np.ndarray, seed: Sequence[int]) -> list[np.ndarray]:
    """Return the rows of each class in random order, of which the first k are the k shots.

    Args:
        label: Class of each row, (N,).
        seed: Random seed.
    """
    rng = np.random.default_rng(list(seed))
    return [rng.permutation(np.flatnonzero(label == c)) for c in np.unique(label)]


def prototypes(vectors: np.ndarray, label: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean vector of each class, (C, D), and the classes, (C,).

    Args:
        vectors: Vectors of the rows, (N, D).
        label: Class of each row, (N,).
    """
    classes, of = np.unique(label, return_inverse=True)
    total = np.zeros((len(classes), vectors.shape[1]))
    np.add.at(total, of, vectors)
    return total / np.bincount(of)[:, None], classes


def nearest(vectors: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Return the index of the centre with the smallest Euclidean distance to each vector, (R,).

    Args:
        vectors: Vectors, (R, D).
        centres: Centres, (C, D).
    """
    return ((centres**2).sum(1) - 2 * vectors @ centres.T).argmin(1)
