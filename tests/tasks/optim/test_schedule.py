"""Schedules, against torch's own."""

import pytest
import torch
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR

from mm.tasks.optim.schedule import Schedule, TrainingProgress


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
    for warmup in (-1, 2.5):
        with pytest.raises(ValueError, match=f"task.scheduler.warmup: got {warmup}, wanted whole steps, or a part"):
            Schedule("cosine", warmup=warmup)
    with pytest.raises(ValueError, match="task.scheduler.end: got 1.5"):
        Schedule("cosine", end=1.5)


def test_a_run_goes_on_with_epochs_of_other_lengths():
    cosine = Schedule("cosine", warmup=0.1)
    alone = TrainingProgress(100, 100, 1000, 1000)  # ten epochs
    assert [alone(step) for step in (0, 1, 999)] == [0, 1, 999]
    two = alone.resume(500, 50, 500, left=250, by_epochs=True)  # two processes, after five of them
    rates = [cosine(two(500 + step), two.total) for step in range(250)]
    assert rates == pytest.approx([cosine(500 + 2 * step, 1000) for step in range(250)])
    one = two.resume(600, 100, 1000, left=300, by_epochs=True)  # and back, three epochs before the end
    assert [one(step) for step in (600, 700, 900)] == pytest.approx([700, 800, 1000])
    assert one.total == pytest.approx(1000)


def test_a_run_goes_on_longer_as_one_that_was_as_long_from_the_start():
    for by_epochs in (True, False):
        longer = TrainingProgress(100, 100, 200, 200).resume(200, 100, 300, left=100, by_epochs=by_epochs)
        assert ([longer(step) for step in (200, 250)], longer.total) == ([200, 250], 300)
    fewer = TrainingProgress(100, 100, 200, 200).resume(
        150, 50, 400, left=250, by_epochs=False
    )  # max_steps counts steps
    assert (fewer(150), fewer.total) == (150, 400)
