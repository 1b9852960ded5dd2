"""Weights by hand, losses as measured apart, set in the task, and kept for a run that goes on."""

import warnings

import pytest
import torch
import torch.nn.functional as F
from lightning import Callback
from tasks.test_supervised import Data, build_model, build_task, fit, make_batch

from mm.callbacks.gradient_blending import GradientBlending, Measured, blend, limit, measure
from mm.types import IGNORE


@pytest.fixture(autouse=True)
def few_workers(recwarn):
    warnings.filterwarnings("ignore", ".*does not have many workers.*")
    warnings.filterwarnings("ignore", ".*number of training batches.*")
    warnings.filterwarnings("ignore", ".*lr_scheduler.step.*")


def test_weights_by_hand():
    before = {"": Measured(1.0, 1.1), "audio": Measured(2.0, 2.0), "text": Measured(1.5, 1.5)}
    after = {"": Measured(0.5, 0.8), "audio": Measured(1.9, 1.95), "text": Measured(0.1, 1.6)}
    # G = 0.3, 0.05, 0 (the text's validation loss has risen); O = 0.2, 0.05, 1.5
    parts = {"": 0.3 / 0.2**2, "audio": 0.05 / 0.05**2, "text": 0.0}
    total = sum(parts.values())  # 7.5 + 20
    assert blend(before, after) == pytest.approx({name: part / total for name, part in parts.items()})


def test_nothing_fell_and_no_gap_grew():
    before = {"": Measured(1.0, 1.0), "audio": Measured(1.0, 1.0)}
    assert blend(before, before) == {}
    fell = {"": Measured(0.9, 0.9), "audio": Measured(0.7, 0.7)}  # a growth of nothing divides by 1e-3 squared
    assert blend(before, fell) == pytest.approx({"": 0.25, "audio": 0.75})


class Watch(Callback):
    """What the task weighs with in each epoch, and what is measured at its beginning."""

    def __init__(self):
        self.seen, self.measured = [], []

    def on_train_epoch_start(self, trainer, task):
        self.seen.append({"": task.fused_weight} | task.unimodal_loss_weight)
        modes = [m.training for m in task.modules()]
        self.measured.append(measure(trainer, task))
        assert modes == [m.training for m in task.modules()]


def test_losses_are_those_of_an_untroubled_pass():
    batch, watch = make_batch(unlabelled=(0, 5)), Watch()
    task = build_task(build_model(), lr=0.0, unimodal_loss_weight=0.5, modality_dropout=0.9)
    fit(task, Data(batch, [5, 7]), callbacks=[watch])
    target, found = batch.targets["digit"], watch.measured[0]
    output = task.model(batch.inputs, batch.masks)
    whole = float(F.cross_entropy(output.predictions["digit"].logits, target, ignore_index=IGNORE))
    assert found[""].train == found[""].val == pytest.approx(whole)
    for name in ("left", "right"):
        rows = batch.masks[name][:, 0] & (target != IGNORE)
        logits = task.unimodal[name]["digit"].linear(output.features[name].pooled[rows])
        assert found[name].val == pytest.approx(float(F.cross_entropy(logits, target[rows])))


def test_a_shorter_epoch_shortens_no_validation():
    batch, watch = make_batch(), Watch()
    task = build_task(build_model(), lr=0.0, unimodal_loss_weight=0.5)
    fit(task, Data(batch, [5, 7]), callbacks=[watch], limit_train_batches=1)
    logits = task.model(batch.inputs, batch.masks).predictions["digit"].logits
    found, target = watch.measured[0][""], batch.targets["digit"]
    assert found.train == pytest.approx(float(F.cross_entropy(logits[:5], target[:5])))
    assert found.val == pytest.approx(float(F.cross_entropy(logits, target)))
    assert [limit(8, most) for most in (None, 1.0, 0.25, 3, 20, 0)] == [8, 8, 2, 3, 8, 0]


def test_sets_the_weights_of_the_task():
    watch, blending = Watch(), GradientBlending(every_n_epochs=1)
    task = build_task(build_model(), lr=0.3, unimodal_loss_weight=1)
    fit(task, Data(make_batch(), [12]), callbacks=[watch, blending])
    assert watch.seen == [{"": 1.0, "left": 1, "right": 1}]
    assert sum(blending.weights.values()) == pytest.approx(1)
    assert {"": task.fused_weight, **task.unimodal_loss_weight} == blending.weights
    assert blending.before[""].train < watch.measured[0][""].train
    # one that goes on with its state does not measure anew at its beginning
    again, then = Watch(), GradientBlending(every_n_epochs=5)
    then.load_state_dict(blending.state_dict())
    fit(build_task(build_model(), lr=0.3, unimodal_loss_weight=1), Data(make_batch(), [12]), callbacks=[again, then])
    assert again.seen == [blending.weights]
    assert then.before == blending.before


def test_the_whole_models_weight_scales_its_gradient_alone():
    batch = make_batch()
    found = []
    for weight in (1.0, 0.25):
        task = build_task(build_model(), unimodal_probes=True)
        task.fused_weight = weight
        sum(w * total / count for total, count, w in task.losses(batch).values()).backward()
        found.append({name: p.grad for name, p in task.model.named_parameters()})
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], 0.25 * gradient, msg=name)


def test_what_it_needs_is_told():
    with pytest.raises(ValueError, match="such as 1: it is None"):
        fit(build_task(build_model()), Data(make_batch(), [12]), callbacks=[GradientBlending()])
    with pytest.raises(ValueError, match="every_n_epochs: got 0"):
        GradientBlending(every_n_epochs=0)
