from collections import Counter

import numpy as np
import pytest

from datamodules.order import Batching, Order

LENGTHS = {"text": np.random.default_rng(0).integers(1, 65, 400).astype(float)}
PLAIN = Batching(8)
BUDGET = Batching(64, {"text": 128.0}, buckets=5)


def order(rows: np.ndarray | int = 400, how: Batching = PLAIN, rank: int = 0, world: int = 1, **changed) -> Order:
    given = {"shuffle": True, "seed": 0} | changed
    return Order(np.arange(rows) if isinstance(rows, int) else rows, how, rank=rank, world=world,
                 lengths=lambda names: LENGTHS, **given)  # fmt: skip


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
def test_goes_on_where_it_was(how: Batching, world: int) -> None:
    for taken in (1, 7):
        begun, again = order(how=how, world=world), order(how=how, world=world)
        for o in (begun, again):
            o.set_epoch(2)
        whole = list(begun)
        again.load_state_dict(begun.state_dict(taken))
        assert len(again) == len(whole)
        rest = list(again)
        assert rest == whole[taken:]  # rows and seeds
        third = order(how=how, world=world)
        third.set_epoch(2)
        third.load_state_dict(again.state_dict(2))  # stopped a second time
        assert list(third) == whole[taken + 2 :]
        third.set_epoch(3)
        assert len(list(third)) == len(whole)  # the next epoch is a whole one


@pytest.mark.parametrize(("before", "after"), [((1, PLAIN), (2, PLAIN)), ((2, BUDGET), (1, BUDGET)), ((3, BUDGET), (2, PLAIN))])  # fmt: skip
def test_goes_on_in_another_number_of_processes(before, after) -> None:
    (old, how), (new, other) = before, after
    shares = [list(order(how=how, rank=rank, world=old)) for rank in range(old)]
    seen = [row for share in shares for row in flat(share[:5])]
    state = order(how=how, world=old).state_dict(5)
    rest = [order(how=other, rank=rank, world=new) for rank in range(new)]
    for o in rest:
        o.load_state_dict(state)
    total = len(rest[0])
    shares = [list(o) for o in rest]
    assert total == 5 + len(shares[0])
    seen += [row for share in shares for row in flat(share)]
    counts = Counter(seen)
    counts.pop(-1, 0)
    assert counts == Counter(range(400))
    # and back again, in the same epoch
    state = rest[0].state_dict(3)
    last = [order(how=how, rank=rank, world=old) for rank in range(old)]
    for o in last:
        o.load_state_dict(state)
    left = Counter(row for o in last for row in flat(list(o)) if row >= 0)
    gone = Counter(row for share in shares for row in flat(share[:3]) if row >= 0)
    first = Counter(
        row for rank in range(old) for row in flat(list(order(how=how, rank=rank, world=old))[:5]) if row >= 0
    )
    assert left + gone + first == Counter(range(400))


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
        ({"batch_size": 1, "buckets": 0}, "datamodule.buckets: got 0"),
        ({"batch_size": 1, "budget": {"text": -5}}, "datamodule.budget.text: got -5"),
    ):
        with pytest.raises(ValueError, match=said):
            Batching(**wrong)
