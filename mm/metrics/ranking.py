"""Where what was chosen stands among all that could have been: recall@k and NDCG@k of whole rankings."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mm.metrics._items import Items, told
from mm.metrics.retrieval import QUERIES, TIE, recall
from mm.types import IGNORE


def places(queries: Tensor, items: Tensor, own: Tensor, left_out: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """How many items are closer to each query than its own one, and how many others as close.

    queries (Q, D), items (I, D), own (Q,), of each query the items that do not count -> (Q,) int64 each
    """
    closer, equal = [], []
    for start in range(0, len(queries), QUERIES):
        part = slice(start, start + QUERIES)
        similarity = queries[part] @ items.T  # (q, I)
        mine = similarity.gather(1, own[part, None])
        for row, out in enumerate(left_out[part]):
            similarity[row, out] = -torch.inf
        similarity.scatter_(1, own[part, None], mine)
        closer.append((similarity > mine + TIE).sum(1))
        equal.append(((similarity - mine).abs() <= TIE).sum(1) - 1)
    return torch.cat(closer), torch.cat(equal)


def ndcg(closer: Tensor, equal: Tensor, k: int) -> Tensor:
    """Mean of 1 / log2(1 + rank) where the rank is at most k (Järvelin 2002); of ties the expectation."""
    gain = 1 / torch.arange(2, k + 2, dtype=torch.float64).log2()
    summed = torch.cat([gain.new_zeros(1), gain.cumsum(0)]).to(closer.device)  # of the first places
    return ((summed[(closer + equal + 1).clamp(max=k)] - summed[closer.clamp(max=k)]) / (equal + 1)).mean()


class Ranking(Items):
    """Measure recall@k and ndcg@k of rankings: the first side queries, and all items of the second side are ranked.

    A row that has both sides queries its own item. Rows of one label have one item, which is ranked also where nobody
    queries it. Items that rows of the same group had in an earlier split are left out. The recall of chance and the
    number of queries are measured as well.

    Args:
        top_k: Every k.
        **kwargs: Those of `torchmetrics.Metric`.

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

    def about(self, label: Tensor, group: Tensor, before: Tensor) -> None:
        """Of all rows of the data: label and group (N,) int64, IGNORE where there is none; which were before (N,)."""
        self.label, self.group, self.before = label, group, before

    def pairs(self, sides: int) -> list[tuple[int, int]]:
        """What is asked for by what."""
        return [(0, 1)]

    def compute(self) -> dict[tuple[int, int], dict[str, Tensor]]:
        """(0, 1) -> name -> value; nothing where no row asks."""
        vectors, present, row = (x.cpu() for x in self.seen())
        label = self.label[row]
        there = ((label != IGNORE) & present[:, 1]).nonzero().flatten()
        labels, which = label[there].unique(return_inverse=True)
        first = torch.full_like(labels, len(row)).scatter_reduce(0, which, there, "amin")
        asking = ((label != IGNORE) & present[:, 0] & present[:, 1]).nonzero().flatten()
        if not len(asking):
            return {}
        left_out = self.had(self.group[row[asking]], labels)
        own = torch.searchsorted(labels, label[asking])
        asked, items = vectors[asking, 0], vectors[first, 1]
        found = places(asked, items, own, left_out)
        candidates = torch.tensor([len(labels) - len(out) for out in left_out])
        values = {f"recall@{k}": recall(*found, k).float() for k in self.top_k}
        values |= {f"ndcg@{k}": ndcg(*found, k).float() for k in self.top_k}
        values |= {f"chance@{k}": (k / candidates).clamp(max=1).mean() for k in self.top_k}
        values["rows"] = torch.tensor(float(len(asking)))
        return {(0, 1): {name: value.to(self.device) for name, value in told(values, asked, items).items()}}

    def had(self, group: Tensor, labels: Tensor) -> list[Tensor]:
        """Of each group, (Q,), where in `labels` stands what its rows had before."""
        known = (self.before & (self.group != IGNORE) & torch.isin(self.label, labels)).nonzero().flatten()
        order = known[self.group[known].argsort(stable=True)]
        groups, counts = self.group[order].unique_consecutive(return_counts=True)
        parts = torch.searchsorted(labels, self.label[order]).split(counts.tolist())
        items = dict(zip(groups.tolist(), parts))
        return [items.get(one, labels[:0]).unique() for one in group.tolist()]

    def names(self) -> dict[str, bool]:
        """What is measured and tells how good it is -> whether higher is better."""
        return {f"{name}@{k}": True for k in self.top_k for name in ("recall", "ndcg")}
