"""Schedules, against torch's own."""

import pytest
import torch
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR

from mm.tasks.schedule import Schedule


def torchs(make, steps):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = make(optimizer)
    rates = []
    for _ in range(steps):
        rates.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    return rates


def test_cosine_and_linear_are_torchs():
    cosine, linear = Schedule("cosine", end=0.1), Schedule("linear", end=0.1)
    assert [cosine(i, 20) for i in range(20)] == pytest.approx(
        torchs(lambda o: CosineAnnealingLR(o, 20, eta_min=0.1), 20)
    )
    assert [linear(i, 20) for i in range(20)] == pytest.approx(torchs(lambda o: LinearLR(o, 1.0, 0.1, 20), 20))


@pytest.mark.parametrize("warmup", [4, 0.2])
def test_warmup_in_steps_or_as_a_part(warmup):
    schedule = Schedule("constant", warmup)
    assert [schedule(i, 20) for i in range(6)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1, 1])


def test_the_end_is_kept_after_the_last_step():
    assert Schedule("cosine", end=0.25)(30, 20) == pytest.approx(0.25)


def test_mistakes():
    with pytest.raises(ValueError, match="wanted cosine, linear or constant"):
        Schedule("step")
    with pytest.raises(ValueError, match="warmup of 0 or more"):
        Schedule("cosine", warmup=-1)
