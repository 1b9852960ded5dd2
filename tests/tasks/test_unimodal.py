"""Heads of one input alone: what flows back is what was asked for; teachers pull, and stay as they are."""

import copy
import warnings
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from cli.test_resume import SMALL, curve, kill, same_weights
from processes import run_two
from sklearn.metrics import accuracy_score
from tasks.distributed.test_sharding import SGD, Case, halves, learn
from tasks.distributed.test_sharding import build_model as build_other
from tasks.distributed.test_sharding import make_batch as make_other
from tasks.test_supervised import Data, build_model, build_task, fit, make_batch
from torch import nn

from mm.callbacks.gradient_blending import GradientBlending
from mm.callbacks.gradient_modulation import GradientModulation
from mm.tasks.distributed.sharding import FSDP2Strategy
from mm.tasks.unimodal import Distillation, fresh, resolve_loss_weights
from mm.types import IGNORE


@pytest.fixture(autouse=True)
def few_workers(recwarn):
    warnings.filterwarnings("ignore", ".*does not have many workers.*")
    warnings.filterwarnings("ignore", ".*number of training batches.*")
    warnings.filterwarnings("ignore", ".*lr_scheduler.step.*")


def gradients(task, batch):
    """Of the mean losses, added up by their weights."""
    task.zero_grad()
    sum(weight * total / count for total, count, weight in task.losses(batch).values()).backward()
    return {name: p.grad.clone() for name, p in task.named_parameters()}


def by_hand(task, batch, name):
    """Gradient of the mean cross-entropy of an input's own head over the rows that have it."""
    task.zero_grad()
    rows = batch.masks[name][:, 0] & (batch.targets["digit"] != IGNORE)
    pooled = task.model.encode(batch.inputs, batch.masks)[name].pooled[rows]
    linear = task.unimodal[name]["digit"].linear
    F.cross_entropy(pooled @ linear.weight.T + linear.bias, batch.targets["digit"][rows]).backward()
    return {n: torch.zeros_like(p) if p.grad is None else p.grad.clone() for n, p in task.named_parameters()}


def test_a_probe_leaves_every_gradient_of_the_model_exactly_as_it_was():
    batch = make_batch(unlabelled=(0, 5))
    without, probed = build_task(build_model()), build_task(build_model(), unimodal_probes=True)
    expected, found = gradients(without, batch), gradients(probed, batch)
    for name, gradient in expected.items():
        assert torch.equal(found[name], gradient), name
    for name in ("left", "right"):
        own = by_hand(probed, batch, name)
        for n in (f"unimodal.{name}.digit.linear.weight", f"unimodal.{name}.digit.linear.bias"):
            torch.testing.assert_close(found[n], own[n])
            assert found[n].abs().max() > 1e-3


def test_the_weight_scales_what_flows_on_and_not_the_head_itself():
    batch = make_batch(unlabelled=(0, 5))
    task = build_task(build_model(), unimodal_loss_weight={"left": 0.5, "right": 3})
    expected, found = gradients(build_task(build_model()), batch), gradients(task, batch)
    left, right = by_hand(task, batch, "left"), by_hand(task, batch, "right")
    for name in found:
        if name.startswith("unimodal"):
            torch.testing.assert_close(found[name], left[name] + right[name], msg=name)
        else:
            torch.testing.assert_close(found[name], expected[name] + 0.5 * left[name] + 3 * right[name], msg=name)
    assert any(x.abs().max() > 1e-4 for n, x in left.items() if n.startswith("model.encoders.left"))


@pytest.mark.parametrize(
    "options", [{"gradient_clip_val": 0.1}, {"gradient_clip_val": 0.1, "accumulate_grad_batches": 3}]
)
def test_training_with_probes_ends_with_the_same_weights(options):
    """Though gradients are clipped, and micro-batches labelled unevenly."""
    batch = make_batch(unlabelled=(0, 1, 2, 5))
    trained = []
    for probes in (False, True):
        task = build_task(build_model(), lr=1.0, unimodal_probes=probes, modality_dropout=0.3)
        start = copy.deepcopy(task.unimodal.state_dict())
        trained.append(fit(task, Data(batch, [4, 3, 5]), **options))
    for name, value in trained[0].items():
        assert torch.equal(trained[1][name], value), name
    assert all(not torch.equal(start[name], x) for name, x in task.unimodal.state_dict().items())


def test_optimizer_and_checkpoint_have_the_heads_and_not_the_teachers():
    task = build_task(
        build_model(), unimodal_loss_weight={"left": 0}, distillation=Distillation({"left": build_model()})
    )
    names = [name for name in task.state_dict() if not name.startswith("model.")]
    assert names == ["unimodal.left.digit.linear.weight", "unimodal.left.digit.linear.bias"]
    fit(task, Data(make_batch(), [12]))
    chosen = {id(p) for group in task.trainer.optimizers[0].param_groups for p in group["params"]}
    assert chosen == {id(p) for p in task.parameters()}


def test_a_fresh_head_is_drawn_anew():
    head = build_model().heads["digit"]
    other = fresh(head)
    assert not torch.equal(other.linear.weight, head.linear.weight)
    assert other.classes == head.classes


def test_validation_measures_each_input_by_its_own_head():
    batch = make_batch(unlabelled=(3,))
    task = build_task(build_model(two_heads=True), unimodal_probes=True)
    task.eval()
    with torch.no_grad():
        task.validation_step(batch, 0)
    expected = {}
    for name in ("left", "right"):
        rows = batch.masks[name][:, 0] & (batch.targets["digit"] != IGNORE)
        pooled = task.model.encode(batch.inputs, batch.masks)[name].pooled[rows]
        logits = task.unimodal[name]["digit"].linear(pooled)
        truth = batch.targets["digit"][rows]
        expected[f"val[{name}]/digit/unimodal_accuracy"] = accuracy_score(truth, logits.argmax(1))
        expected[f"val[{name}]/digit/unimodal_loss"] = float(F.cross_entropy(logits, truth))
    logged = {}
    task.log_dict = logged.update
    task.on_validation_epoch_end()
    for name, value in expected.items():
        assert float(logged[name]) == pytest.approx(value), name
    assert set(logged) == set(task.val_names())
    assert task.val_names()["val[left]/digit/unimodal_accuracy"] is True


def test_losses_of_a_step_by_their_names():
    task = build_task(build_model(), unimodal_loss_weight=0.5, distillation=Distillation({"right": build_model()}))
    fit(task, Data(make_batch(), [12]))
    found = task.train_losses()
    assert set(found) == {
        "train/loss",
        "train[left]/unimodal_loss",
        "train[right]/unimodal_loss",
        "train[right]/teacher_loss",
    }
    expected = build_task(build_model()).losses(make_batch())["digit"]
    assert float(found["train/loss"]) == pytest.approx(float(expected[0] / expected[1]))  # of the model alone


def test_the_norm_of_each_encoders_gradient_is_logged():
    batch, logged = make_batch(), {}
    task = build_task(build_model(), unimodal_loss_weight=0.5)
    task.log_dict = lambda values, **_: logged.update(values)
    expected = gradients(build_task(build_model(), unimodal_loss_weight=0.5), batch)
    fit(task, Data(batch, [12]), log_every_n_steps=1, gradient_clip_val=0.01)
    for place, prefixes in {
        "train": ("model.",),
        "train[left]": ("model.encoders.left.", "model.projections.left."),
        "train[right]": ("model.encoders.right.", "model.projections.right."),
    }.items():
        flat = torch.cat([x.flatten() for n, x in expected.items() if n.startswith(prefixes)])
        assert float(logged[f"{place}/grad_norm"]) == pytest.approx(float(flat.norm()), rel=1e-5)


def other_model():
    """The same model with other weights."""
    model = build_model()
    for parameter in model.parameters():
        nn.init.normal_(parameter, generator=torch.Generator().manual_seed(parameter.numel()))
    return model


def test_a_teacher_draws_the_vectors_of_the_rows_that_have_the_input():
    batch, teacher = make_batch(), other_model()
    task = build_task(build_model(), distillation=Distillation({"right": teacher}, 0.3))
    total, count, weight = task.losses(batch)["teacher of right"]
    rows = batch.masks["right"][:, 0]
    vectors = [m.encode(batch.inputs, batch.masks)["right"].pooled[rows] for m in (task.model, teacher)]
    assert float(total / count) == pytest.approx(float(F.mse_loss(*vectors)))
    assert (int(count), weight) == (8, 0.3)
    assert not any(p.requires_grad for p in teacher.parameters())
    before = {name: x.clone() for name, x in teacher.state_dict().items()}
    student = build_task(build_model(), lr=0.5, distillation=Distillation({"right": teacher}, 0.3))
    moved = fit(student, Data(batch, [12]))
    alone = fit(build_task(build_model(), lr=0.5), Data(batch, [12]))
    changed = {name for name in moved if not torch.equal(moved[name], alone[name])}
    assert changed
    assert all(name.startswith(("encoders.right", "projections.right")) for name in changed)
    assert all(torch.equal(before[name], x) for name, x in teacher.state_dict().items())
    student.train()
    assert not teacher.training


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (
            {"unimodal_loss_weight": {"lefft": 1}},
            r"task.unimodal_loss_weight: there is no input 'lefft'.*did you mean 'left'",
        ),
        ({"unimodal_loss_weight": -1}, "got -1 for 'left', wanted 0 or more"),
        (
            {"distillation": Distillation({"rigt": build_model()})},
            "task.distillation.teachers: there is no input 'rigt'.*did you mean 'right'",
        ),
        (
            {"distillation": Distillation({"left": build_other()})},
            "task.distillation.teachers.left: the teacher has no such input, only text, vision",
        ),
        ({"unimodal_loss_weight": 0}, "got 0, by which no encoder learns anything; for heads that only measure set "),
    ],
)
def test_mistakes_are_named(more, message):
    with pytest.raises(ValueError, match=message):
        build_task(build_model(), **more)


def test_a_negative_weight_of_teachers_is_refused():
    with pytest.raises(ValueError, match=r"task.distillation.weight: got -0.1"):
        Distillation({}, -0.1)


def test_a_teacher_of_another_width_is_refused():
    teacher = build_model()
    teacher.projections["left"] = nn.Linear(4, 9)
    with pytest.raises(ValueError, match=r"its model.embed_dim is 9, this model's is 8"):
        build_task(build_model(), distillation=Distillation({"left": teacher}))


def test_weights_as_they_are_typed():
    assert resolve_loss_weights(None, False, ["a", "b"]) == {}
    assert resolve_loss_weights(None, True, ["a", "b"]) == {"a": 0, "b": 0}
    assert resolve_loss_weights({"b": 0.5}, False, ["a", "b"]) == {"b": 0.5}
    assert resolve_loss_weights({"b": 0.5}, True, ["a", "b"]) == {"a": 0, "b": 0.5}
    assert resolve_loss_weights(2, True, ["a", "b"]) == {"a": 2, "b": 2}


def cases() -> dict[str, Case]:
    """Unevenly unlabelled targets, an input that one process lacks, three steps."""
    uneven = make_other(digit=(0, 1, 2, 8), size=(3, 4, 5, 6, 7), absent=(0, 1, 2, 3, 9))
    shares = halves((0, 2, 4), (4, 9, 12), (0, 5, 12))
    modulated = {"callbacks": [GradientModulation(alpha=0.5)]}
    clipped = {"gradient_clip_val": 0.1}
    return {
        "heads": Case(uneven, shares, clipped, task={"unimodal_loss_weight": {"text": 0.0, "vision": 0.7}}),
        "probes under accumulation": Case(
            make_other(digit=(1, 2, 3)),
            halves((0, 3, 6), (6, 10, 12)),
            {"accumulate_grad_batches": 2},
            task={"unimodal_probes": True},
            only=("digit",),
        ),
        "teacher": Case(uneven, shares, clipped, task={"distillation": Distillation({"vision": build_other()})}),
        "modulated": Case(uneven, shares, modulated, task={"unimodal_probes": True}),
        "blended": Case(
            uneven,
            shares,
            {"callbacks": [GradientBlending(every_n_epochs=1)]},
            partial(SGD, lr=0.1),  # three steps at 1 make a hundred times more of a difference in the last digit
            {"unimodal_loss_weight": 1},
        ),
    }


KINDS = {name: ("ddp",) if name == "modulated" else ("ddp", "fsdp") for name in cases()}


def worker(rank: int, folder: Path) -> None:
    """One of two processes: every case."""
    for name in cases():
        for kind in KINDS[name]:
            case, strategy = cases()[name], "ddp"
            if kind == "fsdp":
                strategy = FSDP2Strategy(cpu_offload=False, save_distributed_checkpoint=True)
            found = learn(case, case.shares[rank], strategy, devices=2)
            if rank == 0:
                torch.save((*found, blended(case)), folder / f"{kind} {name}")


def blended(case: Case) -> dict[str, float]:
    return next((c.weights for c in case.options.get("callbacks", ()) if isinstance(c, GradientBlending)), {})


@pytest.mark.slow
def test_two_processes_learn_and_measure_what_one_does(tmp_path, recwarn):
    warnings.filterwarnings("ignore")
    run_two(worker, tmp_path)
    for name, case in cases().items():
        weights, results = learn(case, case.alone())
        assert any((weights[n] - x).abs().max() > 1e-3 for n, x in case.model().state_dict().items())
        for kind in KINDS[name]:
            found, measured, blend = torch.load(tmp_path / f"{kind} {name}", weights_only=True)
            for n in weights:
                torch.testing.assert_close(found[n], weights[n], atol=1e-5, rtol=0, msg=f"{kind} {name}: {n}")
            assert measured == {n: pytest.approx(x, rel=1e-5, abs=1e-5) for n, x in results.items()}, (kind, name)
            assert blend == {n: pytest.approx(x, abs=1e-4) for n, x in blended(case).items()}, (kind, name)


def test_a_run_with_every_strategy_resumes_as_if_it_had_not_been_stopped(mm, manifest, tmp_path):
    args = [*SMALL, f"datamodule.path={manifest}", "task.unimodal_loss_weight=0.5", "task.modality_dropout=0.2"]
    args += [
        "callbacks=[default,gradient_modulation,gradient_blending]",
        "callbacks.gradient_blending.every_n_epochs=1",
    ]
    whole = mm("train", *args, "run=whole")
    assert whole.status == 0, whole.err
    assert mm("train", *args, "run=cut", *kill(2, "SIGTERM")).status == 143  # before the first weights are found
    assert mm("train", "run=cut", "resume=true", *kill(12, "SIGTERM")).status == 143  # and after it
    done = mm("train", "run=cut", "resume=true", *kill(-1, "raise"))
    assert done.status == 0, done.err
    folders = tmp_path / "outputs/whole", tmp_path / "outputs/cut"
    logged = curve(folders[0])
    assert logged == curve(folders[1])
    assert same_weights(*folders)
    names = {name for _, name in logged}
    for name in ("train[text]/grad_norm", "train[audio]/ogm_coefficient", "val[vision]/unimodal_accuracy"):
        assert name in names, names
    weights = [{n: x for (_, n), x in logged.items() if n.endswith(("fused_weight", "unimodal_loss_weight"))}]
    assert all(len(found) == 4 for found in weights)
    assert {f"test[{n}]/unimodal_accuracy" for n in ("text", "vision", "audio")} <= set(whole.metrics)


def test_a_run_with_probes_leaves_the_model_of_one_without(mm, manifest, tmp_path):
    args = [*SMALL, f"datamodule.path={manifest}", "trainer.max_epochs=1"]
    assert mm("train", *args, "run=without").status == 0
    assert mm("train", *args, "run=probed", "task.unimodal_probes=true").status == 0
    assert same_weights(tmp_path / "outputs/without", tmp_path / "outputs/probed")
