"""Recall@k and NDCG@k of recommendations, with a ranking of all items for each query."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mm.metrics._row_store import RowStore, mask_nonfinite
from mm.metrics.retrieval import QUERIES, TIE, recall
from mm.types import IGNORE


def ranks(queries: Tensor, items: Tensor, right: Tensor, left_out: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Count, for each query, the items that are closer than its right item, and the other items that are equally close.

    Args:
        queries: Unit vectors of the queries, (Q, D).
        items: Unit vectors of the items, (I, D).
        right: Index of the right item of each query, (Q,).
        left_out: For each query, the indices of the items that are left out.

    Returns:
        Number of closer items and number of other equally close items, (Q,) int64 each.
    """
    closer, equal = [], []
    for start in range(0, len(queries), QUERIES):
        part = slice(start, start + QUERIES)
        similarity = queries[part] @ items.T  # (q, I)
        mine = similarity.gather(1, right[part, None])
        for row, out in enumerate(left_out[part]):
            similarity[row, out] = -torch.inf
        similarity.scatter_(1, right[part, None], mine)
        closer.append((similarity > mine + TIE).sum(1))
        equal.append(((similarity - mine).abs() <= TIE).sum(1) - 1)
    return torch.cat(closer), torch.cat(equal)


def ndcg(closer: Tensor, equal: Tensor, k: int) -> Tensor:
    """Return the mean of 1 / log2(1 + rank), with 0 for ranks above k (Järvelin and Kekäläinen 2002).

    For ties, it is the expectation over their random orders.

    Args:
        closer: Number of closer items of each query, (Q,).
        equal: Number of other equally close items of each query, (Q,).
        k: Maximum rank.
    """
    gain = 1 / torch.arange(2, k + 2, dtype=torch.float64).log2()
    summed = torch.cat([gain.new_zeros(1), gain.cumsum(0)]).to(closer.device)  # total gain of the first ranks
    return ((summed[(closer + equal + 1).clamp(max=k)] - summed[closer.clamp(max=k)]) / (equal + 1)).mean()


class Ranking(RowStore):
    """Recall@k and NDCG@k of rankings, in which the first input (or tower) queries and the second one is ranked.

    Each row that has both inputs queries its own item. Rows with the same label have the same item. All items are
    ranked, also those that no row queries. Items that rows of the same group had in an earlier split are left out. The
    metrics include the recall of a random order, "chance@k", and the number of queries, "rows".

    Args:
        top_k: Values of k.
        **kwargs: Arguments of `torchmetrics.Metric`.

    Raises:
        ValueError: If a k is below 1.
    """

    def __init__(self, top_k: Sequence[int] = (10,), **kwargs: Any):
        super().__init__(**kwargs)
        if not top_k or min(top_k) < 1:
            raise ValueError(f"task.retrieval.top_k: got {list(top_k)}, wanted numbers from 1")
        self.top_k = list(top_k)
        self.label = self.group = torch.zeros(0, dtype=torch.long)
        self.before = torch.zeros(0, dtype=torch.bool)

    def set_index(self, label: Tensor, group: Tensor, before: Tensor) -> None:
        """Set the item, the group and the split of all rows of the data.

        Args:
            label: Label of each row, which identifies its item, (N,) int64; IGNORE if it is unknown.
            group: Group of each row, such as the user, (N,) int64; IGNORE if it is unknown.
            before: Whether each row is in an earlier split, (N,) bool.
        """
        self.label, self.group, self.before = label, group, before

    def queries(self, sides: int) -> list[tuple[int, int]]:
        """Return the pairs of a querying and a ranked input, as indices."""
        return [(0, 1)]

    def compute(self) -> dict[tuple[int, int], dict[str, Tensor]]:
        """Return the metrics by name, under the key (0, 1); an empty dictionary if no row queries."""
        vectors, present, row = (x.cpu() for x in self.seen())
        label = self.label[row]
        there = ((label != IGNORE) & present[:, 1]).nonzero().flatten()
        labels, which = label[there].unique(return_inverse=True)
        first = torch.full_like(labels, len(row)).scatter_reduce(0, which, there, "amin")
        asking = ((label != IGNORE) & present[:, 0] & present[:, 1]).nonzero().flatten()
        if not len(asking):
            return {}
        left_out = self.seen_items(self.group[row[asking]], labels)
        right = torch.searchsorted(labels, label[asking])
        asked, items = vectors[asking, 0], vectors[first, 1]
        found = ranks(asked, items, right, left_out)
        candidates = torch.tensor([len(labels) - len(out) for out in left_out])
        values = {f"recall@{k}": recall(*found, k).float() for k in self.top_k}
        values |= {f"ndcg@{k}": ndcg(*found, k).float() for k in self.top_k}
        values |= {f"chance@{k}": (k / candidates).clamp(max=1).mean() for k in self.top_k}
        values["rows"] = torch.tensor(float(len(asking)))
        return {(0, 1): {name: value.to(self.device) for name, value in mask_nonfinite(values, asked, items).items()}}

    def seen_items(self, group: Tensor, labels: Tensor) -> list[Tensor]:
        """Return the items that the rows of each group had in an earlier split, as indices into `labels`.

        Args:
            group: Group of each query, (Q,).
            labels: Sorted labels of the items.
        """
        known = (self.before & (self.group != IGNORE) & torch.isin(self.label, labels)).nonzero().flatten()
        order = known[self.group[known].argsort(stable=True)]
        groups, counts = self.group[order].unique_consecutive(return_counts=True)
        parts = torch.searchsorted(labels, self.label[order]).split(counts.tolist())
        items = dict(zip(groups.tolist(), parts))
        return [items.get(one, labels[:0]).unique() for one in group.tolist()]

    def names(self) -> dict[str, bool]:
        """Return the names of the metrics that measure quality, and whether higher values are better."""
        return {f"{name}@{k}": True for k in self.top_k for name in ("recall", "ndcg")}
