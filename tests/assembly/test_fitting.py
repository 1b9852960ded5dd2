from types import SimpleNamespace

import pytest

from mm.assembly.fitting import explain_no_validation, stopped_by_steps


def trainer(global_step: int, max_steps: int, max_epochs: int | None, batches: int = 10, accumulate: int = 1):
    return SimpleNamespace(
        global_step=global_step,
        max_steps=max_steps,
        max_epochs=max_epochs,
        current_epoch=1,
        num_training_batches=batches,
        accumulate_grad_batches=accumulate,
    )


@pytest.mark.parametrize(
    ("stopped", "given"),
    [
        (True, trainer(6, 6, max_epochs=1)),  # within the only epoch
        (True, trainer(6, 6, max_epochs=20)),
        (True, trainer(6, 6, max_epochs=None)),
        (True, trainer(4, 4, max_epochs=1, batches=9, accumulate=2)),  # of five steps
        (False, trainer(10, 10, max_epochs=1)),  # both at once
        (False, trainer(10, -1, max_epochs=1)),
        (False, trainer(6, 20, max_epochs=1)),  # something else
        (False, trainer(5, 5, max_epochs=1, batches=9, accumulate=2)),
    ],
)
def test_what_stopped_a_training(stopped, given):
    assert stopped_by_steps(given) == stopped
    assert explain_no_validation(given).startswith("trainer.max_steps" if stopped else "validation")
