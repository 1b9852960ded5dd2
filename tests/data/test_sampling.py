from collections import Counter

import numpy as np
import pytest

from mm.data.mixing import Mixture
from mm.data.sampling import Batching, Order, Shards

LENGTHS = {"text": np.random.default_rng(0).integers(1, 65, 400).astype(float)}
PLAIN = Batching(8)
BUDGET = Batching(64, {"text": 128.0}, buckets=5)


SHARDS = Shards(np.arange(400) // 20, window=3)  # 20 of 20 rows each
SOURCE = np.repeat([0, 1, 2], [40, 300, 60])
MIXTURE = Mixture(SOURCE, [100, 150, 150], one_source=False)  # the first is gone through two and a half times
APART = Mixture(SOURCE, [100, 150, 150], one_source=True)
# By class within each file: 40 rows of the second are rare, and come five times.
RARE = Mixture(SOURCE, [100, 100, 150, 50], one_source=True, stratum=np.repeat([0, 1, 2, 3], [40, 260, 40, 60]))
KINDS = [
    {"shards": SHARDS},
    {"mixture": RARE},
    {"shards": SHARDS, "mixture": RARE},
    {"mixture": MIXTURE},
    {"mixture": APART},
    {"shards": SHARDS, "mixture": APART},
]


def order(rows: np.ndarray | int = 400, how: Batching = PLAIN, rank: int = 0, world: int = 1, **changed) -> Order:
    given = {"shuffle": True, "seed": 0} | changed
    return Order(
        np.arange(rows) if isinstance(rows, int) else rows,
        how,
        rank=rank,
        world=world,
        lengths=lambda names: LENGTHS,
        **given,
    )


def rows(batches: Order | list) -> list[list[int]]:
    return [[draw.row for draw in batch] for batch in batches]


def flat(batches: Order | list) -> list[int]:
    return [row for batch in rows(batches) for row in batch]


@pytest.mark.parametrize("how", [Batching(2), Batching(2, {"text": 60.0}, 3)])
@pytest.mark.parametrize("world", [1, 2, 3, 5])
@pytest.mark.parametrize("shuffle", [True, False])
def test_every_row_once_and_as_many_steps_in_every_process(how: Batching, world: int, shuffle: bool) -> None:
    some = np.array([3, 1, 4, 15, 9, 2, 6])
    orders = [order(some, how, rank, world, shuffle=shuffle) for rank in range(world)]
    shares = [rows(o) for o in orders]
    assert len({len(s) for s in shares}) == 1
    assert len(shares[0]) == len(orders[0])
    for step in zip(*shares):  # a process that had fewer rows would count less where a loss is a mean over rows
        assert len({len(batch) for batch in step}) == 1
    seen = Counter(row for share in shares for batch in share for row in batch)
    seen.pop(-1, 0)
    assert seen == Counter(some.tolist())


@pytest.mark.parametrize("how", [Batching(4), Batching(16, {"text": 128.0}, 3)])
@pytest.mark.parametrize("world", [2, 3])
def test_processes_see_what_one_would(how: Batching, world: int) -> None:
    shares = [rows(order(290, how, rank, world)) for rank in range(world)]
    if how is not PLAIN and not how.budget:
        whole = rows(order(290, Batching(4 * world)))
        assert [set().union(*step) - {-1} for step in zip(*shares)] == [set(batch) for batch in whole]
    for step in zip(*shares):  # of one bucket: within a global batch nobody waits for another's padding
        lengths = [max((LENGTHS["text"][r] for r in batch if r >= 0), default=0) * len(batch) for batch in step]
        assert not how.budget or max(lengths) <= 128


def test_epochs() -> None:
    one = order(50, seed=3)
    first = rows(one)
    one.set_epoch(1)
    second = rows(one)
    assert first != second
    assert rows(one) == second
    one.set_epoch(0)
    assert rows(one) == first
    assert rows(order(50, seed=4)) != first
    still = order(50, shuffle=False)
    still.set_epoch(5)
    assert flat(still) == list(range(50))


def test_a_budget_holds_and_wastes_little() -> None:
    batches = rows(order(how=BUDGET))
    lengths = [[LENGTHS["text"][row] for row in batch] for batch in batches]
    padded = sum(max(batch) * len(batch) for batch in lengths)
    assert all(max(batch) * len(batch) <= 128 for batch in lengths)
    at_random = [LENGTHS["text"][flat(order())[i : i + 4]].max() * 4 for i in range(0, 400, 4)]
    real = LENGTHS["text"].sum()
    assert padded / real < 1.25 < sum(at_random) / real
    firsts = [batch[0] for batch in lengths[:10]]
    assert sorted(firsts) != firsts  # long and short batches take turns


def test_two_budgets_hold_together() -> None:
    seconds = np.random.default_rng(1).uniform(1, 20, 400)
    both = {"text": LENGTHS["text"], "audio": seconds}
    how = Batching(32, {"text": 256.0, "audio": 60.0}, 4)
    batches = rows(Order(np.arange(400), how, True, 0, 0, 1, lambda names: both))
    assert sorted(row for batch in batches for row in batch) == list(range(400))
    for batch in batches:
        assert both["text"][batch].max() * len(batch) <= 256
        assert both["audio"][batch].max() * len(batch) <= 60


@pytest.mark.parametrize("how", [PLAIN, BUDGET])
@pytest.mark.parametrize("world", [1, 2])
@pytest.mark.parametrize("kind", [{}, *KINDS])
def test_goes_on_where_it_was(how: Batching, world: int, kind: dict) -> None:
    for taken in (1, 7):
        begun, again = order(how=how, world=world, **kind), order(how=how, world=world, **kind)
        for o in (begun, again):
            o.set_epoch(2)
        whole = list(begun)
        again.load_state_dict(begun.state_dict(taken))
        assert len(again) == len(whole)
        rest = list(again)
        assert rest == whole[taken:]  # rows and seeds
        third = order(how=how, world=world, **kind)
        third.set_epoch(2)
        third.load_state_dict(again.state_dict(2))  # stopped a second time
        assert list(third) == whole[taken + 2 :]
        third.set_epoch(3)
        begun.set_epoch(3)
        assert list(third) == list(begun)  # the next epoch is a whole one


def counted(batches: Order | list) -> Counter[int]:
    return Counter(row for row in flat(batches) if row >= 0)


@pytest.mark.parametrize(
    ("before", "after"), [((1, PLAIN), (2, PLAIN)), ((2, BUDGET), (1, BUDGET)), ((3, BUDGET), (2, PLAIN))]
)
@pytest.mark.parametrize("kind", [{}, *KINDS])
def test_goes_on_in_another_number_of_processes(before, after, kind) -> None:
    (old, how), (new, other) = before, after
    whole = counted(order(**kind))
    shares = [list(order(how=how, rank=rank, world=old, **kind)) for rank in range(old)]
    first = sum((counted(share[:5]) for share in shares), Counter())
    state = order(how=how, world=old, **kind).state_dict(5)
    rest = [order(how=other, rank=rank, world=new, **kind) for rank in range(new)]
    for o in rest:
        o.load_state_dict(state)
    total = len(rest[0])
    shares = [list(o) for o in rest]
    assert total == 5 + len(shares[0])
    assert first + sum(map(counted, shares), Counter()) == whole
    # and back again, in the same epoch
    state = rest[0].state_dict(3)
    last = [order(how=how, rank=rank, world=old, **kind) for rank in range(old)]
    for o in last:
        o.load_state_dict(state)
    left = sum((counted(list(o)) for o in last), Counter())
    gone = sum((counted(share[:3]) for share in shares), Counter())
    assert left + gone + first == whole


@pytest.mark.parametrize("how", [PLAIN, BUDGET])
@pytest.mark.parametrize("world", [1, 3])
def test_few_shards_at_a_time(how: Batching, world: int) -> None:
    orders = [order(how=how, rank=rank, world=world, shards=SHARDS) for rank in range(world)]
    firsts = []
    for epoch in range(2):
        for one in orders:
            one.set_epoch(epoch)
        shares = [list(one) for one in orders]
        assert len({len(share) for share in shares}) == 1
        assert sum(map(counted, shares), Counter()) == Counter(range(400))
        seen = [[r // 20 for share in shares for r in flat([share[step]]) if r >= 0] for step in range(len(shares[0]))]
        opened, kept = 0, []
        for shard in (shard for found in seen for shard in found):
            opened += shard not in kept
            kept = [*(other for other in kept if other != shard), shard][-2 * SHARDS.window :]
        # each once; with three processes, the rows of one batch of short texts are from half of the shards
        assert opened == 20 if how is PLAIN else opened < 45
        firsts.append(list(dict.fromkeys(shard for found in seen for shard in found)))
        if how is PLAIN:
            middle = seen[len(seen) // 2]
            assert 1 < len(set(middle)) <= 4
    assert firsts[0] != firsts[1]  # shards are shuffled, too
    assert firsts[0] != sorted(firsts[0])


def test_rows_of_few_shards_are_shuffled_as_ever() -> None:
    assert list(order(shards=Shards(np.arange(400) // 20, window=20))) == list(order())
    assert list(order(how=BUDGET, shards=Shards(np.arange(400) % 3, window=3))) == list(order(how=BUDGET))


def test_rows_that_are_not_shuffled_are_read_shard_by_shard() -> None:
    scattered = Shards(np.arange(400) % 20, window=3)
    assert [row % 20 for row in flat(order(shuffle=False, shards=scattered))] == sorted(np.arange(400) % 20)
    budget = [row % 20 for row in flat(order(how=Batching(4, {"text": 1e18}, 5), shuffle=False, shards=scattered))]
    assert sorted(budget) == sorted(np.arange(400) % 20)
    assert max(budget[:100]) <= 9  # by length within, but still one after the other


@pytest.mark.parametrize("world", [1, 2])
@pytest.mark.parametrize("shards", [None, SHARDS])
def test_a_mixture(world: int, shards: Shards | None) -> None:
    orders = [order(how=Batching(8), rank=rank, world=world, mixture=MIXTURE, shards=shards) for rank in range(world)]
    totals: Counter[int] = Counter()
    for epoch in range(4):
        for one in orders:
            one.set_epoch(epoch)
        draws = [draw for one in orders for batch in one for draw in batch if draw.row >= 0]
        assert len(draws) == 400
        assert len({draw.seed for draw in draws}) == 400  # drawn twice, it is augmented in two ways
        assert np.bincount(SOURCE[[draw.row for draw in draws]]).tolist() == [100, 150, 150]
        totals += Counter(draw.row for draw in draws)
    assert {totals[row] for row in range(40)} == {10}  # 400 draws of 40 rows
    assert {totals[row] for row in range(40, 340)} == {2}  # 600 of 300
    assert {totals[row] for row in range(340, 400)} == {10}
    mixed = [np.bincount(SOURCE[batch], minlength=3) for batch in rows(orders[0])]
    assert shards or sum((found > 0).all() for found in mixed[:-1]) > len(mixed) / 2


def test_a_file_that_comes_round_again_has_a_new_order() -> None:
    one = order(mixture=Mixture(np.repeat([0, 1], [10, 390]), [30, 370], one_source=False))
    places, before = one.mixture.draw(0, one.turn)
    assert before[:30].tolist() == [0] * 10 + [1] * 10 + [2] * 10
    turns = [places[i : i + 10].tolist() for i in (0, 10, 20)]
    assert all(sorted(turn) == list(range(10)) for turn in turns)
    assert turns[0] != turns[1] != turns[2] != turns[0]


def test_a_small_file_that_is_drawn_often_is_spread_over_the_epoch() -> None:
    source = np.repeat([0, 1], [20, 380])  # one shard, and nineteen
    drawn = flat(order(shards=SHARDS, mixture=Mixture(source, [200, 200], one_source=False)))
    parts = [np.mean(source[drawn[i : i + 100]] == 0) for i in range(0, 400, 100)]
    assert min(parts) > 0.1


@pytest.mark.parametrize("how", [PLAIN, BUDGET])
@pytest.mark.parametrize("world", [1, 2])
def test_batches_of_one_source(how: Batching, world: int) -> None:
    shares = [rows(order(how=how, rank=rank, world=world, mixture=APART)) for rank in range(world)]
    assert sum(row >= 0 for share in shares for batch in share for row in batch) == 400
    found = []
    for step in zip(*shares):
        (source,) = {SOURCE[row] for batch in step for row in batch if row >= 0}
        found.append(source)
    assert found != sorted(found)  # they take turns


@pytest.mark.parametrize("how", [PLAIN, BUDGET])
def test_classes_of_a_file_are_drawn_apart_and_share_batches(how: Batching) -> None:
    batches = rows(order(how=how, mixture=RARE))
    assert np.bincount(RARE.stratum[[r for batch in batches for r in batch]]).tolist() == [100, 100, 150, 50]
    assert all(len({SOURCE[r] for r in batch}) == 1 for batch in batches)
    both = [len({RARE.stratum[r] for r in batch}) for batch in batches if SOURCE[batch[0]] == 1]
    assert max(both) == 2


def test_seeds_belong_to_epoch_and_row() -> None:
    one = order(50)
    first = {draw.row: draw.seed for batch in one for draw in batch}
    assert len(set(first.values())) == 50
    assert {d.row: d.seed for b in order(50, Batching(3)) for d in b} == first
    one.set_epoch(1)
    assert not set(first.values()) & {draw.seed for batch in one for draw in batch}


def test_wrong_settings() -> None:
    for wrong, said in (
        ({"batch_size": 0}, "datamodule.batch_size: got 0, wanted at least 1"),
        ({"batch_size": 1, "buckets": 0}, "datamodule.num_buckets: got 0"),
        ({"batch_size": 1, "budget": {"text": -5}}, "datamodule.max_batch_length.text: got -5"),
        (
            {"batch_size": 1, "budget": {"text": "4k"}},
            "datamodule.max_batch_length.text: got 4k, wanted tokens or seconds above 0",
        ),
    ):
        with pytest.raises(ValueError, match=said):
            Batching(**wrong)


def test_the_length_is_planned_once_an_epoch() -> None:
    order = Order(np.arange(100), Batching(8), True, 0, 0, 1)
    planned = []
    left = order.left
    order.left = lambda done: planned.append(done) or left(done)  # type: ignore[method-assign]
    assert [len(order) for _ in range(5)] == [13] * 5
    assert len(planned) == 1
    order.set_epoch(1)
    assert len(order) == 13
    assert len(planned) == 2
    order.load_state_dict({"epoch": 1, "parts": [{"world": 2, "batching": {"batch_size": 8}, "batches": 3}]})
    assert len(order) == 3 + -(-(100 - 3 * 16) // 8)


def test_saved_before_the_first_batch_it_goes_on_where_it_was_begun() -> None:
    state = {
        "epoch": 2,
        "parts": [{"world": 1, "batching": {"batch_size": 8, "budget": {}, "buckets": 1}, "batches": 3}],
    }
    rest = []
    for _ in range(3):  # stopped again and again before a batch is trained
        order = Order(np.arange(100), Batching(8), True, 0, 0, 1)
        order.set_epoch(2)
        order.load_state_dict(state)
        state = order.state_dict(0)
        rest.append(list(order))
    assert len(rest[0]) == 10
    assert rest[0] == rest[1] == rest[2]
