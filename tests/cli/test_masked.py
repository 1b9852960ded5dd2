"""Pictures without labels first, then a few with: the embedded digits."""

import pytest

ARGS = ["datamodule.inputs=[vision]", "trainer.accelerator=cpu", "model.encoders.vision.widths=[16,32]"]
MASKED = [*ARGS, "task=masked_patch", "task.objectives.masked_patch.patch=2", "task.optimizer.lr=0.003"]


def test_learns_without_labels_and_is_a_beginning(mm):
    first = mm("train", *MASKED, "run=one", "trainer.max_epochs=1")
    assert first.status == 0, first.err
    run = mm("train", *MASKED, "run=masked", "trainer.max_epochs=6")
    assert run.status == 0, run.err
    assert run.metrics["test/loss"] < 0.95 * first.metrics["test/loss"]
    again = mm("train", *MASKED, "run=again", "trainer.max_epochs=6")
    assert again.metrics["test/loss"] == run.metrics["test/loss"]  # what is hidden is the same
    few = mm(
        "train",
        *ARGS,
        "run=few",
        "model.init_from=outputs/masked/model",
        "trainer.max_epochs=1",
        "datamodule.split.rows=100",
    )
    assert few.status == 0, few.err
    assert "digits: train 100, val 180, test 180 rows" in few.out
    assert "model.init_from: " in few.out and "encoders.vision (" in few.out
    alone = mm("evaluate", "checkpoint=outputs/masked/model")
    assert alone.status == 2
    assert "nothing of this model can be measured by itself" in alone.err
    tell = mm("predict", "checkpoint=outputs/masked/model")
    assert tell.status == 2
    assert "predicts nothing" in tell.err


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["task=masked_patch"], "none learns of the input 'text', which is text; leave it out"),
        ([*MASKED, "model/fusion=gated"], "nothing would train model.fusion"),
        ([*MASKED, "task.freeze=['^encoders']"], "the encoder of 'vision' is frozen"),
        ([*MASKED, "task.objectives.masked_patch.ratio=1"], "wanted a patch from 1 and a ratio in 0..1"),
        (
            [*ARGS, "datamodule.split.rows=5000"],
            "split.rows: got 5000, wanted from 1 to the 1437 training rows",
        ),
    ],
)
def test_mistakes(mm, args, said):
    run = mm("train", *args, "trainer.max_epochs=1")
    assert run.status == 2
    assert said in run.err
    assert "Traceback" not in run.err
