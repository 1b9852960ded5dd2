"""Recall and ranks against sorting; ties by lot; absent rows neither ask nor are found."""

from math import comb

import pytest
import torch
import torch.nn.functional as F

from mm.metrics.retrieval import TIE, Retrieval, median_rank, places, recall, recall_of


def draw(rows=40, inputs=3, width=4, absent=0.0):
    generator = torch.Generator().manual_seed(0)
    vectors = F.normalize(torch.randn(rows, inputs, width, generator=generator), dim=-1)
    vectors[:, 1] = F.normalize(vectors[:, 0] + 0.5 * vectors[:, 1], dim=-1)  # partners lie close
    return vectors, torch.rand(rows, inputs, generator=generator) >= absent, torch.arange(rows)


@pytest.mark.parametrize("absent", [0.0, 0.3])
def test_ranks_are_those_of_sorting(absent):
    vectors, present, row = draw(absent=absent)
    metric = Retrieval(top_k=[1, 3, 10])
    for part in row.split(7):
        metric.update(vectors[part], present[part], part)
    found = metric.compute()
    assert sorted(found) == [(0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1)]
    for (a, b), values in found.items():
        both = (present[:, a] & present[:, b]).nonzero().flatten().tolist()
        ranks = []
        for i in both:
            order = sorted(both, key=lambda j: -float(vectors[i, a] @ vectors[j, b]))
            ranks.append(order.index(i) + 1)
        assert values["rows"] == len(both)
        for k in (1, 3, 10):
            assert values[f"recall@{k}"].item() == pytest.approx(sum(r <= k for r in ranks) / len(ranks))
            assert values[f"chance@{k}"].item() == pytest.approx(k / len(both))
        assert values["median_rank"] == torch.tensor(ranks).double().quantile(0.5)
    assert found[0, 1]["recall@10"] > 0.8 > found[0, 2]["recall@10"]


def test_where_all_are_alike_it_is_chance():
    same = F.normalize(torch.ones(30, 5), dim=-1) * (1 + 1e-7 * torch.rand(30, 1))  # rounding differs
    closer, equal = places(same, same)
    assert [recall(closer, equal, k).item() for k in (1, 5, 40)] == pytest.approx([1 / 30, 5 / 30, 1])
    assert median_rank(closer, equal) == 15.5


def test_of_two_equal_items_each_is_found_half_the_time():
    items = torch.eye(4)[[0, 0, 1, 2]]
    closer, equal = places(items, items)
    assert closer.tolist() == [0, 0, 0, 0]
    assert equal.tolist() == [1, 1, 0, 0]
    assert recall(closer, equal, 1).item() == pytest.approx(0.75)
    assert recall(closer, equal, 2).item() == 1


def test_a_pair_that_no_row_has_is_left_out_and_reset_forgets():
    vectors, present, row = draw()
    present[:, 2] = False
    metric = Retrieval()
    metric.update(vectors, present, row)
    assert sorted(metric.compute()) == [(0, 1), (1, 0)]
    metric.reset()
    metric.update(vectors[:3], present[:3], row[:3])
    assert metric.compute()[0, 1]["rows"] == 3
    assert metric.compute()[0, 1]["chance@5"] == 1
    with pytest.raises(ValueError, match="task.retrieval.top_k"):
        Retrieval(top_k=[0])


def test_names_are_those_that_are_measured():
    metric = Retrieval()
    metric.update(*draw())
    assert set(metric.names()) <= set(metric.compute()[0, 1])
    assert metric.names() == {"recall@1": True, "recall@5": True, "recall@10": True, "median_rank": False}


def test_among_candidates_beside_drawing_them():
    generator = torch.Generator().manual_seed(0)
    queries, items = torch.randn(2, 30, 4, generator=generator)
    items[5] = items[6]
    closer, equal = places(queries, items)
    similarity = queries @ items.T
    wins = []
    for query in range(30):
        rest = torch.tensor([i for i in range(30) if i != query])
        for _ in range(400):
            drawn = rest[torch.randperm(29, generator=generator)[:9]]
            gap = similarity[query, drawn] - similarity[query, query]
            place = int((gap > TIE).sum()) + int(
                torch.randint(int((gap.abs() <= TIE).sum()) + 1, (), generator=generator)
            )
            wins.append([place < 1, place < 5])
    wanted = torch.tensor(wins).double().mean(0)
    for k, mean in zip((1, 5), wanted.tolist(), strict=True):
        assert float(recall_of(closer, equal, k, 10)) == pytest.approx(mean, abs=0.015)
    assert float(recall_of(closer, equal, 5, 30)) == pytest.approx(float(recall(closer, equal, 5)))
    with pytest.raises(ValueError, match="got 40, but only 30 items"):
        recall_of(closer, equal, 1, 40)
    metric = Retrieval(top_k=[1, 5], candidates=5)
    assert metric.names() == {"recall@1": True, "recall@5": True, "recall@1of5": True, "median_rank": False}


def test_vectors_that_are_no_numbers_are_not_found_well():
    vectors, present, row = draw(rows=8, inputs=2)
    present[7] = False
    vectors[7] = torch.nan  # filler of what is absent does not matter
    metric = Retrieval(top_k=[1])
    metric.update(vectors, present, row)
    assert metric.compute()[0, 1]["recall@1"].isfinite()
    vectors[3, 1] = torch.nan
    metric.reset()
    metric.update(vectors, present, row)
    assert all(value.isnan() for values in metric.compute().values() for value in values.values())


def test_equal_items_are_one_item() -> None:
    """A perfect model of 8 pictures with one caption, and 8 with a caption each, finds all of them."""
    kinds = torch.tensor([0] * 8 + list(range(1, 9)))
    vectors = torch.eye(9)[kinds][:, None].expand(-1, 2, -1)
    content = torch.stack([kinds, torch.arange(16)], 1)
    metric = Retrieval(top_k=[1, 5])
    for part in torch.arange(16).split(5):
        metric.update(vectors[part], torch.ones(len(part), 2, dtype=torch.bool), part, content[part])
    for pair in ((0, 1), (1, 0)):
        values = metric.compute()[pair]
        assert values["recall@1"] == values["recall@5"] == 1 and values["median_rank"] == 1
        assert float(values["chance@1"]) == pytest.approx((8 * 8 / 16 + 8 * 1 / 16) / 16)
    without = Retrieval(top_k=[1])
    without.update(vectors, torch.ones(16, 2, dtype=torch.bool), torch.arange(16))
    assert float(without.compute()[0, 1]["recall@1"]) == pytest.approx((8 / 8 + 8) / 16)  # by lot


def test_a_model_that_gives_one_vector_to_all_is_not_perfect() -> None:
    """Only what holds the same is one item, not what merely has the same vector."""
    metric = Retrieval(top_k=[1])
    content = torch.stack([torch.arange(10), torch.arange(10).clamp(min=1)], 1)
    metric.update(torch.ones(10, 2, 4) / 2, torch.ones(10, 2, dtype=torch.bool), torch.arange(10), content)
    assert float(metric.compute()[0, 1]["recall@1"]) == pytest.approx((8 / 10 + 2 / 9) / 10)


@pytest.mark.parametrize("seed", range(20))
def test_ranks_with_duplicates_are_those_of_sorting(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    rows = 12
    content = torch.randint(0, 7, (rows, 2), generator=generator)
    tables = F.normalize(torch.randn(2, 7, 4, generator=generator), dim=-1)
    vectors = torch.stack([tables[side][content[:, side]] for side in (0, 1)], 1)
    metric = Retrieval(top_k=[1, 3], candidates=4)
    metric.update(vectors, torch.ones(rows, 2, dtype=torch.bool), torch.arange(rows), content)
    pairs = {(a, b) for a, b in content.tolist()}
    ranks, chances = [], []
    for i in range(rows):
        rights = {j for j in range(rows) if (int(content[i, 0]), int(content[j, 1])) in pairs}
        order = sorted(range(rows), key=lambda j: -float(vectors[i, 0] @ vectors[j, 1]))
        ranks.append(1 + sum(j not in rights for j in order[: min(order.index(j) for j in rights)]))
        wrong = rows - len(rights)
        chances.append(1 - comb(wrong, 3) / comb(rows, 3))
    found = metric.compute()[0, 1]
    for k in (1, 3):
        assert float(found[f"recall@{k}"]) == pytest.approx(sum(r <= k for r in ranks) / rows)
    assert float(found["chance@3"]) == pytest.approx(sum(chances) / rows)
    assert float(found["median_rank"]) == pytest.approx(float(torch.tensor(ranks).double().quantile(0.5)))
