"""Directories of chosen steps are models of their own, which another run begins with."""

import pytest
import torch
from conftest import COLUMNS, TINY

import mm as package
from mm.callbacks.save_at_steps import SaveAtSteps


def test_models_of_chosen_steps(mm, manifest):
    args = [*COLUMNS, *TINY, f"datamodule.path={manifest}", "datamodule.batch_size=12", "trainer.max_epochs=-1"]
    args += [
        "~callbacks.checkpoint",
        "task/scheduler=constant",
        "task.scheduler.warmup=0",
        "callbacks=[default,save_at_steps]",
        "trainer.max_steps=4",
    ]
    run = mm("train", *args, "callbacks.save_at_steps.steps=[1,3,9]", "trainer.accumulate_grad_batches=2", "run=long")
    assert run.status == 0, run.err
    assert "callbacks.save_at_steps.steps: 9 never came; training took 4 steps" in run.out
    assert sorted(path.name for path in (run.folder / "steps").iterdir()) == ["1", "3"]
    # a run that ends there has the same weights
    short = mm(
        "train", *args, "callbacks.save_at_steps.steps=[1]", "trainer.accumulate_grad_batches=2", "trainer.max_steps=3"
    )
    assert short.status == 0, short.err
    one, three, last, ended = (
        package.load(path).model.state_dict()
        for path in (run.folder / "steps/1", run.folder / "steps/3", run.folder / "model", short.folder / "model")
    )
    for name in three:
        torch.testing.assert_close(three[name], ended[name], rtol=0, atol=0, msg=name)
    assert all(any(not torch.equal(three[name], other[name]) for name in three) for other in (one, last))
    later = mm("train", "run=long", "resume=true", "trainer.max_steps=6", "callbacks.save_at_steps.steps=[2,3,5]")
    assert later.status == 0, later.err
    assert "callbacks.save_at_steps.steps: 2 went by unsaved; the run goes on after step 4" in later.out
    assert (run.folder / "steps/5").is_dir()
    again = mm("train", *args[:-2], "trainer.max_steps=1", f"model.init_from={run.folder}/steps/3", "run=more")
    assert again.status == 0, again.err


@pytest.mark.parametrize("steps", [[], [0], "12", [True], [1.5], 1000, None])
def test_what_are_no_steps(steps):
    with pytest.raises(
        ValueError, match=r"callbacks.save_at_steps.steps: got .*, wanted numbers of steps, such as \[1000"
    ):
        SaveAtSteps("x", steps)


def test_not_beside_an_average(mm, manifest):
    args = [
        *COLUMNS,
        *TINY,
        f"datamodule.path={manifest}",
        "callbacks=[default,ema,save_at_steps]",
        "callbacks.save_at_steps.steps=[1]",
    ]
    run = mm("train", *args)
    assert run.status == 2
    assert "save_at_steps would save the weights as they are, not ema's average" in run.err
