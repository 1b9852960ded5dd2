"""What the command line refuses, a task that was built in Python refuses as well."""

from functools import partial

import pytest
import torch
from lightning import Trainer
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.plugins.precision import MixedPrecision
from tasks.test_nonfinite import data as rows
from tasks.test_supervised import Data, build_model, build_task, make_batch

from mm.tasks.optim.schedule import Schedule
from mm.tasks.supervised import Supervised

QUIET = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "num_sanity_val_steps": 0}


def fit(task, data=None, **options):
    options = {"max_epochs": 1, "accelerator": "cpu", "enable_checkpointing": False, **QUIET, **options}
    trainer = Trainer(**options)
    trainer.fit(task, datamodule=data or Data(make_batch(8), [4, 4]))
    return trainer


def scaled() -> list:
    """What trainer.precision=16-mixed is on a GPU, on a CPU."""
    return [MixedPrecision("16-mixed", "cpu", scaler=torch.amp.GradScaler("cpu"))]


def moved(fused: bool, plugins: list) -> float:
    """How far the weights go in two steps whose gradients are clipped."""
    model = build_model()
    before = torch.cat([p.detach().flatten().clone() for p in model.parameters()])
    task = build_task(model, optimizer=partial(torch.optim.SGD, fused=fused))
    fit(task, plugins=plugins, gradient_clip_val=1.0, limit_val_batches=0)
    return float((torch.cat([p.detach().flatten() for p in model.parameters()]) - before).norm())


def test_fp16_with_a_fused_optimizer_is_refused():
    with pytest.raises(ValueError, match="task.optimizer.fused: under trainer.precision=16-mixed"):
        moved(fused=True, plugins=scaled())


@pytest.mark.filterwarnings("ignore:.*lr_scheduler.step.*")
def test_fp16_moves_the_weights_as_far_as_fp32():
    assert moved(fused=False, plugins=scaled()) == pytest.approx(moved(fused=False, plugins=[]), rel=0.02)


def test_the_guard_against_what_is_not_finite_is_on(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="the loss of step 0 is not finite; the rows of its batch: id0, id1"):
        fit(build_task(build_model()), rows([4, 4], bad=[1]))
    assert not list(tmp_path.iterdir())  # nothing is written that nobody asked for


@pytest.mark.parametrize("precision", ["bf16-true", "16-true"])
def test_a_precision_that_rounds_counts_is_refused(precision):
    with pytest.raises(ValueError, match=f"trainer.precision: got '{precision}'.* wanted {precision[:-4]}mixed"):
        fit(build_task(build_model()), precision=precision)


def test_a_schedule_needs_to_know_the_length_of_the_run():
    task = Supervised(build_model(), partial(torch.optim.SGD, lr=0.1), Schedule("cosine"), metrics={"digit": {}})
    with pytest.raises(ValueError, match="task.scheduler.shape=cosine needs to know how long the run is"):
        fit(task, max_epochs=-1)


@pytest.mark.parametrize("key", ["optimizer", "scheduler"])
def test_a_task_that_trains_has_an_optimizer_and_a_schedule(key):
    given = {"optimizer": partial(torch.optim.SGD, lr=0.1), "scheduler": Schedule("constant"), key: None}
    with pytest.raises(ValueError, match=f"task.{key}: got None"):
        fit(Supervised(build_model(), metrics={"digit": {}}, **given))


@pytest.mark.parametrize("callback", [EarlyStopping, ModelCheckpoint])
def test_what_is_monitored_has_to_be_logged(callback):
    keeps = callback is ModelCheckpoint
    with pytest.raises(ValueError, match=r"\(monitor='val/acuracy'\): .*did you mean 'val/accuracy'"):
        fit(build_task(build_model()), callbacks=[callback(monitor="val/acuracy")], enable_checkpointing=keeps)
    with pytest.warns(UserWarning, match=r"\(monitor='val/accuracy', mode='min'\): higher is better"):
        fit(
            build_task(build_model()),
            callbacks=[callback(monitor="val/accuracy", mode="min")],
            enable_checkpointing=keeps,
            limit_train_batches=0,
        )
