"""Symile against loops over anchors and negatives; two inputs are CLIP's."""

import itertools

import pytest
import torch
from losses.reference import draw, parts, symile_by_loop

from mm.losses.info_nce import info_nce
from mm.losses.symile import Symile, candidates, symile

SCALE = torch.tensor([6.0], dtype=torch.float64)


@pytest.mark.parametrize("inputs", [2, 3, 4])
def test_against_every_combination(inputs):
    batch = draw(5, inputs=inputs, absent=0.1, seed=3)
    full = batch.present.all(1).nonzero().flatten().tolist()
    assert 1 < len(full) < 5 or inputs == 2
    every = [list(c) for c in itertools.product(full, repeat=inputs - 1)]
    total, count = symile(batch, batch, 0, SCALE, "all")
    wanted, rows = symile_by_loop(batch, float(SCALE), [every] * 5)
    assert count == rows
    assert total.item() == pytest.approx(wanted, rel=1e-9)
    assert not torch.autograd.grad(total, batch.vectors)[0][~batch.present.all(1)].any()


def test_against_shuffled_ones():
    batch = draw(9, inputs=3, absent=0.1)
    chosen = candidates(batch.row, batch.present.all(1), 2, "shuffled").T.tolist()
    full = batch.present.all(1).nonzero().flatten().tolist()
    assert sorted(a for a, _ in chosen) == sorted(b for _, b in chosen) == full
    assert any(a != b for a, b in chosen)
    total, count = symile(batch, batch, 0, SCALE)
    wanted, rows = symile_by_loop(batch, float(SCALE), [chosen] * 9)
    assert count == rows == len(full)
    assert total.item() == pytest.approx(wanted, rel=1e-9)


@pytest.mark.parametrize("negatives", ["shuffled", "all"])
def test_two_inputs_are_info_nce(negatives):
    batch = draw(8, absent=0.2)
    torch.testing.assert_close(
        symile(batch, batch, 0, SCALE, negatives), info_nce(batch, batch, 0, (0, 1), SCALE), atol=1e-9, rtol=0
    )


@pytest.mark.parametrize("negatives", ["shuffled", "all"])
@pytest.mark.parametrize("block", [2, 1024])
def test_blocks_processes_and_order_change_nothing(negatives, block):
    batch = draw(9, inputs=3, absent=0.1)
    wanted, _ = symile(batch, batch, 0, SCALE, negatives)
    gradient = torch.autograd.grad(wanted, batch.vectors)[0]
    order = torch.randperm(9, generator=torch.Generator().manual_seed(0))
    mixed = type(batch)(*(x[order] for x in batch))
    found = [symile(mine, mixed, start, SCALE, negatives, chunk_rows=block)[0] for mine, start in parts(mixed, 4, 5)]
    torch.testing.assert_close(torch.stack(found).sum(), wanted)
    torch.testing.assert_close(torch.autograd.grad(torch.stack(found).sum(), batch.vectors)[0], gradient)


def test_combinations_of_one_label_are_left_out():
    label = [0, 1, 0, -100, 1]
    batch = draw(5, inputs=3)._replace(label=torch.tensor(label))
    every = [list(c) for c in itertools.product(range(5), repeat=2)]

    def keep(i: int, rows: list[int]) -> bool:
        return not all(row == i or label[row] == label[i] >= 0 for row in rows)

    total, _ = symile(batch, batch, 0, SCALE, "all")
    assert total.item() == pytest.approx(symile_by_loop(batch, float(SCALE), [every] * 5, keep)[0], rel=1e-9)


def test_it_tells_what_no_pair_does():
    """z = x * y in signs: any two inputs are independent, so pairs tell nothing, all three together everything."""
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(200, 16, generator=generator).sign() / 4 for _ in range(2))
    batch = draw(200, inputs=3, width=16)._replace(vectors=torch.stack([x, y, (x * y).sign() / 4], 1))
    scale = torch.tensor([10.0])
    total, count = symile(batch, batch, 0, scale)
    assert (total / count).item() < 0.3
    for pair in itertools.combinations(range(3), 2):
        total, count = info_nce(batch, batch, 0, pair, scale)
        assert (total / count).item() > 5.0  # log 200 is 5.3


def test_choices():
    assert Symile().groups(3) == [(0, 1, 2)]
    batch = draw(5, inputs=3)
    assert list(Symile(negatives="all")(batch, batch, 0)) == [(0, 1, 2)]
    with pytest.raises(ValueError, match="shuffled, all"):
        Symile(negatives="some")
