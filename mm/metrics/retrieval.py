"""Recall@k and median rank of retrieval among all rows, for every ordered pair of inputs."""

from collections.abc import Sequence
from itertools import permutations
from typing import Any

import numpy as np
import torch
from scipy.stats import hypergeom
from torch import Tensor

from mm.metrics._row_store import RowStore, mask_nonfinite

TIE = 1e-6  # maximum difference of equal similarities; the same item in two batches differs by rounding
QUERIES = 1024  # number of queries compared at a time


def ranks(queries: Tensor, items: Tensor, content: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Count, for each query, the wrong items that are closer than its right item, and those that are equally close.

    The right item of query i is item i. With `content`, an item is also right if an item of the same content is paired
    with a query of the same content in another row. The closest right item is compared, and no right item is counted.

    Args:
        queries: Unit vectors of the queries, (Q, D).
        items: Unit vectors of the items, (Q, D).
        content: Content IDs of query i and of item i, (Q, 2) int64; equal IDs mean equal content. None: all differ.

    Returns:
        Number of closer wrong items and number of equally close wrong items, (Q,) int64 each.
    """
    closer, equal = [], []
    for start in range(0, len(queries), QUERIES):
        part = slice(start, start + QUERIES)
        similarity = queries[part] @ items.T  # (q, Q)
        if content is None:
            right_one = similarity.diagonal(start)[:, None]
            closer.append((similarity > right_one + TIE).sum(1))
            equal.append(((similarity - right_one).abs() <= TIE).sum(1) - 1)
            continue
        right = paired(content, part)
        right_one = similarity.masked_fill(~right, -torch.inf).amax(1, keepdim=True)
        closer.append(((similarity > right_one + TIE) & ~right).sum(1))
        equal.append((((similarity - right_one).abs() <= TIE) & ~right).sum(1))
    return torch.cat(closer), torch.cat(equal)


def paired(content: Tensor, part: slice) -> Tensor:
    """Return whether each item is right for each of q queries, (q, Q) bool.

    Args:
        content: Content IDs of query i and of item i, (Q, 2) int64.
        part: Slice of the q queries.
    """
    asked, which = content[part, 0].unique(return_inverse=True)
    items, item = content[:, 1].unique(return_inverse=True)
    row = torch.searchsorted(asked, content[:, 0].contiguous()).clamp(max=len(asked) - 1)
    known = asked[row] == content[:, 0]
    table = torch.zeros(len(asked), len(items), dtype=torch.bool, device=content.device)
    table[row[known], item[known]] = True
    return table[which][:, item]


def distinct(content: Tensor) -> bool:
    """Return whether all rows have different content in both inputs, from their content IDs (Q, 2)."""
    return all(len(side.unique()) == len(side) for side in content.T)


def recall(closer: Tensor, equal: Tensor, k: int) -> Tensor:
    """Return the fraction of the queries whose right item is among the first k items.

    For ties, it is the expectation over their random orders.

    Args:
        closer: Number of closer wrong items of each query, (Q,).
        equal: Number of equally close wrong items of each query, (Q,).
        k: Number of first items.
    """
    return ((k - closer) / (equal + 1)).clamp(0, 1).double().mean()


def recall_of(closer: Tensor, equal: Tensor, k: int, candidates: int) -> Tensor:
    """Return the expected recall@k if each query ranks only its right item and random other items.

    Args:
        closer: Number of closer wrong items of each query, (Q,).
        equal: Number of equally close wrong items of each query, (Q,).
        k: Number of first items.
        candidates: Number of ranked items, including the right one.

    Raises:
        ValueError: If there are fewer items than `candidates`.
    """
    others = len(closer) - 1
    if others < candidates - 1:
        raise ValueError(f"task.retrieval.candidates: got {candidates}, but only {others + 1} items are searched")
    chances = hypergeom.cdf(k - 1, others, np.arange(others + 1), candidates - 1).cumsum()
    first, last = closer.cpu().numpy(), (closer + equal).cpu().numpy()
    before = np.where(first > 0, chances[first - 1], 0.0)
    return torch.tensor(((chances[last] - before) / (last - first + 1)).mean(), device=closer.device)


def chance(content: Tensor, k: int) -> Tensor:
    """Return the expected recall@k of a random order, in which queries can have several right items.

    Args:
        content: Content IDs of query i and of item i, (Q, 2) int64.
        k: Number of first items.
    """
    count = len(content)
    parts = [slice(start, start + QUERIES) for start in range(0, count, QUERIES)]
    rights = torch.cat([paired(content, part).sum(1) for part in parts]).cpu().numpy()
    found = float(hypergeom.sf(0, count, rights, min(k, count)).mean())
    return torch.tensor(found, device=content.device)


def median_rank(closer: Tensor, equal: Tensor) -> Tensor:
    """Return the median rank of the right items, starting at 1.

    Tied items share the mean of their ranks. With an even number of queries, it is the mean of the two middle ranks.

    Args:
        closer: Number of closer wrong items of each query, (Q,).
        equal: Number of equally close wrong items of each query, (Q,).
    """
    return (closer + 1 + equal / 2).double().quantile(0.5)


class Retrieval(RowStore):
    """Recall@k and median rank of retrieval between every ordered pair of inputs.

    Only rows that have both inputs are queried and searched. Items with the same content, such as the same caption of
    several images, are treated as one item. If a query with the same content occurs in several rows, the items of all
    these rows are right. Other ties, of different items with equal similarity, are broken at random, and the metrics
    are the expectation over their orders. The metrics include the recall of a random order, "chance@k", and the number
    of rows, "rows".

    Args:
        top_k: Values of k.
        candidates: Number of items for an additional recall@k, in which the right item is ranked among random other
            items; None: it is not computed.
        **kwargs: Arguments of `torchmetrics.Metric`.

    Raises:
        ValueError: If a number is out of range.
    """

    def __init__(self, top_k: Sequence[int] = (1, 5, 10), candidates: int | None = None, **kwargs: Any):
        super().__init__(**kwargs)
        if candidates is not None and candidates < 2:
            raise ValueError(f"task.retrieval.candidates: got {candidates}, wanted at least 2, or null")
        if not top_k or min(top_k) < 1:
            raise ValueError(f"task.retrieval.top_k: got {list(top_k)}, wanted numbers from 1")
        self.top_k = list(top_k)
        self.candidates = candidates
        self.of = {k: f"recall@{k}of{candidates}" for k in self.top_k if candidates is not None and k < candidates}

    def queries(self, sides: int) -> list[tuple[int, int]]:
        """Return the pairs of a querying and a searched input, as indices, given the number of inputs."""
        return list(permutations(range(sides), 2))

    def compute(self) -> dict[tuple[int, int], dict[str, Tensor]]:
        """Return the metrics by name for each pair (a, b), of queries in input a and items in input b.

        Pairs that no row has are left out.
        """
        vectors, present, _ = self.seen()
        content = self.contents()
        found = {}
        for a, b in permutations(range(present.shape[1]), 2):
            both = present[:, a] & present[:, b]
            if both.any():
                asked, items = vectors[both, a], vectors[both, b]
                held = None if content is None else content[both][:, [a, b]]
                if held is not None and distinct(held):
                    held = None
                values = self.measure(*ranks(asked, items, held))
                if held is not None:
                    values |= {f"chance@{k}": chance(held, k) for k in self.top_k}
                found[a, b] = mask_nonfinite(values, asked, items)
        return found

    def measure(self, closer: Tensor, equal: Tensor) -> dict[str, Tensor]:
        """Return the metrics of one ordered pair of inputs, by name.

        Args:
            closer: Number of closer wrong items of each query, (Q,).
            equal: Number of equally close wrong items of each query, (Q,).
        """
        count = torch.tensor(float(len(closer)), device=closer.device)
        values = {f"recall@{k}": recall(closer, equal, k).float() for k in self.top_k}
        for k, name in self.of.items():
            values[name] = recall_of(closer, equal, k, self.candidates or 0).float()
        values["median_rank"] = median_rank(closer, equal).float()
        return values | {f"chance@{k}": (k / count).clamp(max=1) for k in self.top_k} | {"rows": count}

    def names(self) -> dict[str, bool]:
        """Return the names of the metrics that measure quality, and whether higher values are better."""
        return (
            {f"recall@{k}": True for k in self.top_k} | dict.fromkeys(self.of.values(), True) | {"median_rank": False}
        )
