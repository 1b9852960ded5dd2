"""Rankings of all items, worked by hand and by sorting; what was had before is left out."""

import math

import pytest
import torch
import torch.nn.functional as F
from torchmetrics.retrieval import RetrievalNormalizedDCG, RetrievalRecall

from mm.metrics.ranking import Ranking, ndcg, places
from mm.types import IGNORE


def unit(*degrees: float) -> torch.Tensor:
    angle = torch.tensor(degrees).deg2rad()
    return torch.stack([angle.cos(), angle.sin()], dim=-1)


def test_by_hand():
    """Two users at 0 degrees; items a to e at 10, 20 ... degrees, of which e is nobody's own."""
    items = unit(10, 20, 30, 40, 50)
    users = torch.cat([unit(0, 0), torch.zeros(5, 2)])
    vectors = torch.stack([users, torch.cat([items[[2, 1]], items])], 1)  # rows 0, 1 ask; the others only are there
    present = torch.tensor([[True, True]] * 2 + [[False, True]] * 5)
    metric = Ranking(top_k=[1, 2])
    label = torch.tensor([2, 1, 0, 1, 2, 3, 4, 0, 3])  # two more rows were before: of user 7 items a and d
    group = torch.tensor([7, 8] + [IGNORE] * 5 + [7, 7])
    metric.about(label, group, torch.tensor([False] * 7 + [True] * 2))
    for rows in (torch.arange(3), torch.arange(3, 7)):
        metric.update(vectors[rows], present[rows], rows)
    found = metric.compute()[0, 1]
    # user 7 wants c: a and d are left out, so that b alone is closer: rank 2; user 8 wants b, a is closer: rank 2
    assert found["recall@1"] == 0
    assert found["recall@2"] == 1
    assert found["ndcg@1"] == 0
    assert found["ndcg@2"].item() == pytest.approx(1 / math.log2(3))
    assert found["chance@1"].item() == pytest.approx((1 / 3 + 1 / 5) / 2)
    assert found["rows"] == 2


def test_beside_torchmetrics():
    generator = torch.Generator().manual_seed(0)
    queries = F.normalize(torch.randn(30, 4, generator=generator), dim=-1)
    items = F.normalize(torch.randn(50, 4, generator=generator), dim=-1)
    own = torch.randint(0, 50, (30,), generator=generator)
    found = places(queries, items, own, [own[:0]] * 30)
    similarity = (queries @ items.T).flatten()
    target, index = F.one_hot(own, 50).flatten(), torch.arange(30).repeat_interleave(50)
    wanted = RetrievalNormalizedDCG(top_k=10)(similarity, target, index)
    assert ndcg(*found, 10).item() == pytest.approx(wanted.item(), abs=1e-6)
    metric = Ranking(top_k=[10])
    metric.about(torch.cat([own, torch.arange(50)]), torch.full((80,), IGNORE), torch.zeros(80).bool())
    present = torch.tensor([[True, True]] * 30 + [[False, True]] * 50)
    sides = torch.stack([torch.cat([queries, torch.zeros(50, 4)]), torch.cat([items[own], items])], 1)
    metric.update(sides, present, torch.arange(80))
    recall = RetrievalRecall(top_k=10)(similarity, target, index)
    assert metric.compute()[0, 1]["recall@10"].item() == pytest.approx(recall.item())


def test_of_ties_the_expectation():
    closer, equal = torch.tensor([1]), torch.tensor([2])  # ranks 2, 3 and 4 are as likely
    assert ndcg(closer, equal, 3).item() == pytest.approx((1 / math.log2(3) + 1 / math.log2(4)) / 3)


def test_nobody_asks():
    metric = Ranking()
    metric.about(torch.tensor([0, 1]), torch.tensor([IGNORE, IGNORE]), torch.tensor([False, False]))
    metric.update(torch.ones(2, 2, 3), torch.tensor([[True, False], [False, True]]), torch.arange(2))
    assert metric.compute() == {}
    with pytest.raises(ValueError, match="task.retrieval.top_k: got "):
        Ranking(top_k=[0])
