"""SigLIP against the paper's formula, a pair at a time; chunked equals whole."""

import math

import pytest
import torch
from losses.reference import draw, parts

from mm.losses.siglip import SigLIP, siglip

SCALE, BIAS = torch.tensor([9.0], dtype=torch.float64), torch.tensor([-4.0], dtype=torch.float64)


def by_loop(batch, sign=lambda i, j: 1 if i == j else -1):
    """-1/|B| sum_i sum_j log 1 / (1 + exp(z_ij (-t x_i.y_j - b))), without the 1/|B|; sign 0: not counted."""
    total = 0.0
    there = [i for i in range(len(batch.row)) if batch.present[i, :2].all()]
    for i in there:
        for j in there:
            z = sign(i, j)
            dot = (batch.vectors[i, 0] @ batch.vectors[j, 1]).item()
            if z:
                total -= math.log(1 / (1 + math.exp(z * (-float(SCALE) * dot - float(BIAS)))))
    return total, len(there)


@pytest.mark.parametrize("absent", [0.0, 0.4])
def test_is_the_paper_s_formula(absent):
    batch = draw(9, absent=absent)
    total, count = siglip(batch, batch, 0, (0, 1), SCALE, BIAS)
    wanted, rows = by_loop(batch)
    assert count == rows
    assert (rows < 9) == (absent > 0)
    assert total.item() == pytest.approx(wanted, rel=1e-10)
    gradient = torch.autograd.grad(total, batch.vectors)[0]
    assert not gradient[~batch.present.all(1)].any()


@pytest.mark.parametrize("block", [1, 4, 9, 1024])
def test_chunked_equals_whole_in_any_number_of_processes(block):
    batch = draw(11, absent=0.2)
    scale, bias = SCALE.clone().requires_grad_(), BIAS.clone().requires_grad_()
    wanted, _ = siglip(batch, batch, 0, (0, 1), scale, bias)
    gradients = torch.autograd.grad(wanted, (batch.vectors, scale, bias))
    found = [siglip(mine, batch, start, (0, 1), scale, bias, chunk_rows=block)[0] for mine, start in parts(batch, 3, 4)]
    total = torch.stack(found).sum()
    torch.testing.assert_close(total, wanted)
    for got, gradient in zip(torch.autograd.grad(total, (batch.vectors, scale, bias)), gradients):
        torch.testing.assert_close(got, gradient)


def test_chunks_keep_less():
    batch = draw(64)
    kept = {}
    for block in (8, 1024):
        kept[block] = 0

        def count(x, block=block):
            kept[block] += x.numel() if x.is_floating_point() else 0
            return x

        with torch.autograd.graph.saved_tensors_hooks(count, lambda x: x):
            siglip(batch, batch, 0, (0, 1), SCALE, BIAS, chunk_rows=block)
    assert kept[8] < 0.2 * kept[1024]


@pytest.mark.parametrize("same_label", ["exclude", "positive"])
def test_rows_of_one_label_are_left_out_or_belong_together(same_label):
    label = [0, 1, 0, -100, 1, -100]
    batch = draw(6)._replace(label=torch.tensor(label))
    alike = {"exclude": 0, "positive": 1}[same_label]
    total, _ = siglip(batch, batch, 0, (0, 1), SCALE, BIAS, same_label)
    wanted, _ = by_loop(batch, lambda i, j: 1 if i == j else alike if label[i] == label[j] >= 0 else -1)
    assert total.item() == pytest.approx(wanted, rel=1e-10)


def test_starts_as_the_paper_does_and_learns_both():
    loss = SigLIP()
    batch = draw(5, inputs=3)
    found = loss(batch, batch, 0)
    assert list(found) == [(0, 1), (0, 2), (1, 2)]
    sum(total for total, _ in found.values()).backward()
    assert loss.temperature().item() == pytest.approx(10)
    assert loss.bias.item() == -10
    assert loss.bias.grad.abs() > 0
    assert loss.temperature.log.grad.abs() > 0
