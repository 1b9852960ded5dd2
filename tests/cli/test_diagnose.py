"""`mm diagnose` finds the planted fault."""

import pytest
from conftest import COLUMNS, TINY

SMALL = [*COLUMNS, *TINY, "trainer.max_epochs=1", "datamodule.batch_size=4", "seed=1"]
BLOW = ["+callbacks.blow._target_=planted.Blow", "+callbacks.blow.batch=2", "+callbacks.blow.name=vision"]


def test_a_loss_that_is_not_finite_stops_and_is_replayed(mm, manifest):
    run = mm("train", *SMALL, *BLOW, f"datamodule.path={manifest}", "run=bad")
    assert run.status == 2
    assert "Traceback" not in run.err
    assert "the loss of step 2 is not finite; the rows of its batch: r" in run.err
    assert "first in model.encoders.vision." in run.err
    assert "mm diagnose run=outputs/bad" in run.err
    said = mm("diagnose", "run=bad")
    assert said.status == 0, said.err
    assert "first in model.encoders.vision." in said.out
    first = run.err.split("the rows of its batch: ")[1].split(",")[0]
    assert f"(id '{first}')" in said.out.split("not finite when computed alone: ")[1].splitlines()[0]
    assert "holds no checkpoint" in said.out


@pytest.mark.filterwarnings("ignore:the loss of step")
def test_skipped_steps_are_counted_and_inputs_weighed(mm, manifest):
    skip = ["task.nonfinite.policy=skip", "trainer.max_epochs=2"]
    run = mm("train", *SMALL, *BLOW, *skip, f"datamodule.path={manifest}", "run=skips")
    assert run.status == 0, run.err
    assert run.metrics["train/skipped_steps"] == 2
    said = mm("diagnose", "run=skips", "rows=8")
    assert said.status == 0, said.err
    assert said.out.count("the loss was not finite") == 2
    for name in ("text", "vision", "audio"):
        assert f"│ {name}" in said.out


def test_mistakes(mm):
    assert mm("diagnose").status == 2
    assert "there is no run in outputs/none" in mm("diagnose", "run=none").err
    assert "usage" in mm("diagnose", "rum=none").err
