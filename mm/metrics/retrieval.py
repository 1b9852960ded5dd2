"""How well one input of an item finds another among all items: recall@k and the median rank, for every ordered pair."""

from collections.abc import Sequence
from itertools import permutations
from typing import Any

import numpy as np
import torch
from scipy.stats import hypergeom
from torch import Tensor

from mm.metrics._items import Items, told

TIE = 1e-6  # similarities closer than this are equal: one item in two batches differs by rounding
QUERIES = 1024  # at once


def places(queries: Tensor, items: Tensor, content: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Count the wrong items that are closer to each query than its right one, and those that are as close.

    The right item of query i is item i. With `content`, so is every item that the data pairs with a query of the same
    content, also where another row holds it; the closest of the right items is compared, and none of them is wrong.

    Args:
        queries: (Q, D).
        items: (Q, D).
        content: Numbers of what the queries and the items hold, (Q, 2) int64; None where all differ.

    Returns:
        Two counts of each query, (Q,) int64.
    """
    closer, equal = [], []
    for start in range(0, len(queries), QUERIES):
        part = slice(start, start + QUERIES)
        similarity = queries[part] @ items.T  # (q, Q)
        if content is None:
            own = similarity.diagonal(start)[:, None]
            closer.append((similarity > own + TIE).sum(1))
            equal.append(((similarity - own).abs() <= TIE).sum(1) - 1)
            continue
        right = paired(content, part)
        own = similarity.masked_fill(~right, -torch.inf).amax(1, keepdim=True)
        closer.append(((similarity > own + TIE) & ~right).sum(1))
        equal.append((((similarity - own).abs() <= TIE) & ~right).sum(1))
    return torch.cat(closer), torch.cat(equal)


def paired(content: Tensor, part: slice) -> Tensor:
    """Return which items are right for some of the queries. content: as in places, part: queries -> (q, Q) bool"""
    asked, which = content[part, 0].unique(return_inverse=True)
    items, item = content[:, 1].unique(return_inverse=True)
    row = torch.searchsorted(asked, content[:, 0].contiguous()).clamp(max=len(asked) - 1)
    known = asked[row] == content[:, 0]
    table = torch.zeros(len(asked), len(items), dtype=torch.bool, device=content.device)
    table[row[known], item[known]] = True
    return table[which][:, item]


def distinct(content: Tensor) -> bool:
    """Return whether no two rows hold the same on either side. content: (Q, 2)"""
    return all(len(side.unique()) == len(side) for side in content.T)


def recall(closer: Tensor, equal: Tensor, k: int) -> Tensor:
    """Part of the queries whose item is among the first k; ties are broken by lot, and this is the expectation."""
    return ((k - closer) / (equal + 1)).clamp(0, 1).double().mean()


def recall_of(closer: Tensor, equal: Tensor, k: int, candidates: int) -> Tensor:
    """As recall, where each query's item is searched among so many: it, and others drawn from all, in expectation.

    Errors: ValueError where there are fewer items than that.
    """
    others = len(closer) - 1
    if others < candidates - 1:
        raise ValueError(f"task.retrieval.candidates: got {candidates}, but only {others + 1} items are searched")
    chances = hypergeom.cdf(k - 1, others, np.arange(others + 1), candidates - 1).cumsum()
    first, last = closer.cpu().numpy(), (closer + equal).cpu().numpy()
    before = np.where(first > 0, chances[first - 1], 0.0)
    return torch.tensor(((chances[last] - before) / (last - first + 1)).mean(), device=closer.device)


def chance(content: Tensor, k: int) -> Tensor:
    """Compute the recall@k of a random order, where some queries have several right items. content: as in places"""
    count = len(content)
    parts = [slice(start, start + QUERIES) for start in range(0, count, QUERIES)]
    rights = torch.cat([paired(content, part).sum(1) for part in parts]).cpu().numpy()
    found = float(hypergeom.sf(0, count, rights, min(k, count)).mean())
    return torch.tensor(found, device=content.device)


def median_rank(closer: Tensor, equal: Tensor) -> Tensor:
    """From 1; of items that tie, each has the mean of their ranks. Of an even number, the mean of the middle two."""
    return (closer + 1 + equal / 2).double().quantile(0.5)


class Retrieval(Items):
    """Measure recall@k and the median rank of retrieval between every ordered pair of inputs.

    Only rows that have both inputs count, and they alone are searched. Items that hold the same, such as one caption
    of several pictures, are one item: each is right where any of them is, and so is what other rows with the same query
    have. Other ties, of unlike items with like vectors, are broken at random, of which this is the expectation. The
    recall of chance and the number of rows are measured as well.

    Args:
        top_k: Every k.
        candidates: Number of items among which recall@k is also measured, the right one and random others; None: none.
        **kwargs: Those of `torchmetrics.Metric`.

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

    def pairs(self, sides: int) -> list[tuple[int, int]]:
        """What is asked for by what."""
        return list(permutations(range(sides), 2))

    def compute(self) -> dict[tuple[int, int], dict[str, Tensor]]:
        """Asked for by input a, searched among input b: (a, b) -> name -> value; pairs that no row has are left out."""
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
                values = self.measure(*places(asked, items, held))
                if held is not None:
                    values |= {f"chance@{k}": chance(held, k) for k in self.top_k}
                found[a, b] = told(values, asked, items)
        return found

    def measure(self, closer: Tensor, equal: Tensor) -> dict[str, Tensor]:
        """By name, of one ordered pair."""
        count = torch.tensor(float(len(closer)), device=closer.device)
        values = {f"recall@{k}": recall(closer, equal, k).float() for k in self.top_k}
        for k, name in self.of.items():
            values[name] = recall_of(closer, equal, k, self.candidates or 0).float()
        values["median_rank"] = median_rank(closer, equal).float()
        return values | {f"chance@{k}": (k / count).clamp(max=1) for k in self.top_k} | {"rows": count}

    def names(self) -> dict[str, bool]:
        """What is measured of each pair and tells how good it is -> whether higher is better."""
        return (
            {f"recall@{k}": True for k in self.top_k} | dict.fromkeys(self.of.values(), True) | {"median_rank": False}
        )
