"""The supervised task: the loss is the global mean, metrics are scikit-learn's, subsets are absences."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning import LightningDataModule, Trainer
from sklearn.metrics import accuracy_score, f1_score
from torch import Tensor
from torch.utils.data import DataLoader
from torchmetrics import Metric
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score

from mm.encoders.vision.conv import VisionConv
from mm.fusion.concat import ConcatFusion
from mm.heads.classification import ClassificationHead
from mm.heads.regression import RegressionHead
from mm.model import MultimodalModel
from mm.tasks.measures import choose_subsets, section, subsets
from mm.tasks.optim.schedule import Schedule
from mm.tasks.row_loss import row_loss
from mm.tasks.supervised import Supervised, drop_inputs
from mm.types import IGNORE, Batch, DataSpec, Features, TargetData
from mm.windows import MergedOutput


def build_model(two_heads=False) -> MultimodalModel:
    torch.manual_seed(0)
    heads = {"digit": ClassificationHead(classes=["a", "b", "c"], embed_dim=8)}
    if two_heads:
        heads["size"] = RegressionHead(embed_dim=8, mean=0.0, std=1.0, criterion="mse", weight=0.5)
    encoders = {n: VisionConv(channels=1, widths=[4], depth=0, groups=2, pool="mean") for n in ("left", "right")}
    return MultimodalModel(encoders, ConcatFusion(inputs=["left", "right"], embed_dim=8), heads, embed_dim=8)


def build_task(model, lr=0.1, optimizer: Any = torch.optim.SGD, **more) -> Supervised:
    metrics = {
        "digit": {"accuracy": MulticlassAccuracy(3, average="micro"), "f1": MulticlassF1Score(3, average="macro")}
    }
    metrics |= {name: {} for name in model.heads if name != "digit"}
    return Supervised(model, lambda groups: optimizer(groups, lr=lr), Schedule("constant"), metrics=metrics, **more)


def make_batch(rows=12, seed=1, unlabelled=()) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    digit = torch.randint(0, 3, (rows,), generator=generator)
    size = torch.randn(rows, generator=generator)
    digit[list(unlabelled)] = IGNORE
    size[list(unlabelled)] = torch.nan
    images = {n: torch.randn(rows, 1, 6, 6, generator=generator) for n in ("left", "right")}
    masks = {n: torch.ones(rows, 1, dtype=torch.bool) for n in images}
    masks["right"][::3] = False
    return Batch(images, masks, {"digit": digit, "size": size}, torch.arange(rows), {})


TARGETS = {"digit": TargetData(kind="class"), "size": TargetData(kind="number")}


class Data(LightningDataModule):
    """Batches of given sizes out of one."""

    spec = DataSpec(inputs={}, targets=TARGETS)

    def __init__(self, batch, sizes):
        super().__init__()
        starts = [sum(sizes[:i]) for i in range(len(sizes))]
        self.batches = [part(batch, slice(s, s + n)) for s, n in zip(starts, sizes)]

    def train_dataloader(self):
        return DataLoader(self.batches, batch_size=None)

    val_dataloader = test_dataloader = train_dataloader

    def loader(self, split, train=False):
        return self.train_dataloader()


def part(batch, rows) -> Batch:
    return Batch(*({n: x[rows] for n, x in d.items()} for d in batch[:3]), batch.row[rows], {})


def fit(task, data, **options):
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    trainer = Trainer(max_epochs=1, accelerator="cpu", num_sanity_val_steps=0, limit_val_batches=0, **quiet, **options)
    trainer.fit(task, datamodule=data)
    return {name: p.detach().clone() for name, p in task.model.named_parameters()}


@pytest.fixture(autouse=True)
def few_workers(recwarn):
    import warnings

    warnings.filterwarnings("ignore", ".*does not have many workers.*")
    warnings.filterwarnings("ignore", ".*number of training batches.*")
    warnings.filterwarnings("ignore", ".*lr_scheduler.step.*")


def by_hand(batch, lr=0.1):
    """One step of plain gradient descent on the mean over all labelled rows."""
    model = build_model()
    output = model(batch.inputs, batch.masks)
    target = batch.targets["digit"]
    torch.nn.functional.cross_entropy(output.predictions["digit"].logits, target, ignore_index=IGNORE).backward()
    return {name: p.detach() - lr * p.grad for name, p in model.named_parameters()}


def test_one_step_is_that_of_the_mean_over_labelled_rows():
    batch = make_batch(unlabelled=(0, 5))
    moved = fit(build_task(build_model()), Data(batch, [12]))
    for name, value in by_hand(batch).items():
        torch.testing.assert_close(moved[name], value, msg=name)


@pytest.mark.parametrize("sizes", [[6, 6], [3, 9], [4, 4, 4]])
def test_accumulation_equals_one_large_batch_however_unevenly_labelled(sizes):
    batch = make_batch(unlabelled=(0, 1, 2, 5))  # a micro-batch of three without any label among them
    moved = fit(build_task(build_model()), Data(batch, sizes), accumulate_grad_batches=len(sizes))
    for name, value in by_hand(batch).items():
        torch.testing.assert_close(moved[name], value, msg=name)


@pytest.mark.parametrize("sizes", [[12], [6, 6], [4, 4, 4]])
def test_a_short_last_window_counts_in_full(sizes):
    batch = make_batch()
    moved = fit(build_task(build_model()), Data(batch, sizes), accumulate_grad_batches=4)
    for name, value in by_hand(batch).items():
        torch.testing.assert_close(moved[name], value, msg=name)


def test_several_heads_accumulate_the_mean_of_their_means():
    """With equal counts that is the large batch; with labels in one micro-batch only, its share, and no more."""
    batch = make_batch()
    whole = fit(build_task(build_model(two_heads=True)), Data(batch, [12]))
    halves = fit(build_task(build_model(two_heads=True)), Data(batch, [6, 6]), accumulate_grad_batches=2)
    for name, value in whole.items():
        torch.testing.assert_close(halves[name], value, msg=name)


def test_class_weights_may_count_less_than_a_row():
    batch = make_batch()
    model = build_model()
    model.heads["digit"].class_loss.weights = torch.full((3,), 0.01)  # the count is 0.12
    moved = fit(build_task(model), Data(batch, [12]))
    for name, value in by_hand(batch).items():
        torch.testing.assert_close(moved[name], value, msg=name)


def test_names_of_validation_are_those_that_are_logged():
    task = build_task(build_model(), modality_subsets={"val": "auto"})
    logged = task.compute("val")
    assert logged == ({}, {})
    assert list(task.val_names())[:3] == ["val/loss", "val/accuracy", "val/f1"]
    assert list(task.val_names().values())[:3] == [False, True, True]
    assert "val[left]/accuracy" in task.val_names()
    assert "val[left]/loss" not in task.val_names()


def test_a_batch_without_labels_moves_nothing():
    batch = make_batch(unlabelled=range(12))
    before = {name: p.clone() for name, p in build_model().named_parameters()}
    moved = fit(build_task(build_model()), Data(batch, [12]))
    for name, value in before.items():
        torch.testing.assert_close(moved[name], value, msg=name)


def test_weights_that_mean_something_else_are_not_gone_on_with():
    made = build_task(build_model())
    saved = {}
    made.on_save_checkpoint(saved)
    assert saved["format"] == 4
    for before in ({}, {"format": 3}):
        with pytest.raises(ValueError, match=r"the run's checkpoint has format (None|3), this mm reads 4"):
            made.on_load_checkpoint(before)


def test_metrics_of_every_subset():
    batch = make_batch(unlabelled=(3,))
    task = build_task(build_model(two_heads=True))
    trainer = Trainer(accelerator="cpu", logger=False, enable_progress_bar=False)
    trainer.test(task, datamodule=Data(batch, [5, 7]), verbose=False)
    model = task.model.eval()
    labelled = batch.targets["digit"] != IGNORE
    none = torch.zeros(12, 1, dtype=torch.bool)
    right = batch.masks["right"][:, 0]
    for place, masks, rows in (
        ("test", batch.masks, labelled),
        ("test[left]", {"left": batch.masks["left"], "right": none}, labelled),
        ("test[right]", {"left": none, "right": batch.masks["right"]}, labelled & right),
    ):
        guess = model(batch.inputs, masks).predictions["digit"].logits.argmax(1)[rows]
        truth = batch.targets["digit"][rows]
        assert task.results[f"{place}/digit/accuracy"] == pytest.approx(accuracy_score(truth, guess))
        assert task.results[f"{place}/digit/f1"] == pytest.approx(f1_score(truth, guess, average="macro"), abs=1e-6)
        assert task.results[f"{place}/digit/rows"] == rows.sum()
    output = model(batch.inputs, batch.masks)
    mse = (output.predictions["size"].value.flatten() - batch.targets["size"])[labelled].square().mean()
    assert task.results["test/size/loss"] == pytest.approx(float(mse), rel=1e-4)
    assert task.results["test/loss"] == pytest.approx(task.results["test/digit/loss"] + 0.5 * float(mse), rel=1e-4)
    assert sorted(task.decoded) == list(range(12))


def test_windows_count_once():
    batch = make_batch(6)
    batch = batch._replace(
        row=torch.tensor([0, 0, 1, 1, 2, -1]), targets={"digit": torch.tensor([1, 1, 2, 2, 0, IGNORE])}
    )
    task = build_task(build_model())
    Trainer(accelerator="cpu", logger=False, enable_progress_bar=False).test(
        task, datamodule=Data(batch, [6]), verbose=False
    )
    assert task.results["test/rows"] == 3
    assert sorted(task.decoded) == [0, 1, 2]  # filler, row -1, is no row


WINDOWS = torch.tensor([0, 0, 0, 0, 1, 2])  # which sample each is of; the last one is the first row, drawn again


def windowed() -> Batch:
    """Two rows, of four windows and of one; the former is also drawn with one window."""
    batch = make_batch(6)
    targets = {"digit": torch.tensor([1, 1, 1, 1, 2, 1]), "size": torch.tensor([0.5] * 4 + [torch.nan, 0.5])}
    return batch._replace(row=torch.tensor([0, 0, 0, 0, 1, 0]), targets=targets, meta={"sample": WINDOWS})


def test_a_row_of_many_windows_weighs_as_one_row() -> None:
    task = build_task(build_model(two_heads=True))
    batch = windowed()
    found = task.losses(batch)
    output = task.model(batch.inputs, batch.masks, batch.targets)
    each = torch.nn.functional.cross_entropy(
        output.predictions["digit"].logits, batch.targets["digit"], reduction="none"
    )
    total, count, _ = found["digit"]
    torch.testing.assert_close(total, each[:4].mean() + each[4] + each[5])
    assert float(count) == 3
    total, count, _ = found["size"]
    error = (output.predictions["size"].value.float() - 0.5).square()
    torch.testing.assert_close(total, error[:4].mean() + error[5])
    assert float(count) == 2


def test_without_windows_the_loss_is_the_head_s_own() -> None:
    task, batch = build_task(build_model()), make_batch(6)
    output = task.model(batch.inputs, batch.masks, batch.targets)
    head = task.model.heads["digit"]
    wanted = head.loss(output.predictions["digit"], batch.targets["digit"], output.fused)
    for one, other in zip(task.losses(batch)["digit"], wanted):
        assert torch.equal(one, other)  # type: ignore[arg-type]


def test_a_head_of_tokens_counts_tokens_and_not_rows() -> None:
    class Counting:
        input = "text"
        per_window = False
        calls = 0

        def loss(self, prediction: Tensor, target: Tensor, fused: Any) -> tuple[Tensor, Tensor]:
            self.calls += 1
            return prediction.sum(), torch.tensor(len(target))

    fused, head = Features(*[torch.zeros(6)] * 4), Counting()
    prediction, target = torch.tensor([4.0, 4, 4, 4, 2, 3]), torch.zeros(6, dtype=torch.long)
    assert [float(x) for x in row_loss(head, prediction, target, fused, WINDOWS)] == [21, 6]  # type: ignore[arg-type]
    head.per_window = True  # type: ignore[attr-defined]
    assert [float(x) for x in row_loss(head, prediction, target, fused, WINDOWS)] == [9, 3]  # type: ignore[arg-type]


@pytest.mark.parametrize("sizes", [[6], [4, 2], [4, 1, 1]])
def test_windows_accumulate_to_the_mean_over_rows(sizes: list[int]) -> None:
    """The step is the gradient of the mean over rows, whichever micro-batches the rows come in."""
    batch, model = windowed(), build_model()
    output = model(batch.inputs, batch.masks, batch.targets)
    each = torch.nn.functional.cross_entropy(
        output.predictions["digit"].logits, batch.targets["digit"], reduction="none"
    )
    ((each[:4].mean() + each[4] + each[5]) / 3).backward()
    wanted = {name: p.detach() - 0.1 * p.grad for name, p in model.named_parameters() if p.grad is not None}
    parts = []
    for start, size in zip([sum(sizes[:i]) for i in range(len(sizes))], sizes):
        rows = slice(start, start + size)
        parts.append(part(batch, rows)._replace(meta={"sample": WINDOWS[rows] - WINDOWS[rows].min()}))
    data, task = Data(batch, [6]), build_task(build_model())
    data.batches = parts
    fit(task, data, accumulate_grad_batches=len(sizes))
    for name, value in wanted.items():
        torch.testing.assert_close(dict(task.model.named_parameters())[name].detach(), value)


def test_many_inputs_have_few_subsets() -> None:
    """2^n - 1 subsets of 10 inputs are 1,023; each alone, all but one, and all are 21."""
    ten = [f"i{n}" for n in range(10)]
    found = choose_subsets("modality_subsets.test", "auto", ten)
    assert len(found) == len(set(found)) == 21 and found[0] == tuple(ten)
    assert sorted({len(part) for part in found}) == [1, 9, 10]
    assert len(choose_subsets("modality_subsets.test", "all", ten)) == 1023
    assert len(choose_subsets("modality_subsets.test", "single", ten)) == 11
    for inputs in (["a"], ["a", "b"], ["a", "b", "c", "d"]):
        assert choose_subsets("modality_subsets.test", "auto", inputs) == subsets(inputs)
        assert choose_subsets("modality_subsets.val", True, inputs) == subsets(inputs)
        assert choose_subsets("modality_subsets.val", False, inputs) == [tuple(inputs)]
    assert choose_subsets("x", ["b+a", ["c"], "a+b+c"], ["a", "b", "c"]) == [("a", "b", "c"), ("a", "b"), ("c",)]
    for wrong in ("some", ["a+d"], [[]]):
        with pytest.raises(ValueError, match="task.modality_subsets.test: got '"):
            choose_subsets("modality_subsets.test", wrong, ["a", "b", "c"])


def test_the_test_measures_the_subsets_that_are_chosen() -> None:
    task = build_task(build_model(), modality_subsets={"test": ["left"]})
    trainer = Trainer(logger=False, enable_checkpointing=False, enable_progress_bar=False, accelerator="cpu")
    trainer.test(task, datamodule=Data(make_batch(), [12]), verbose=False)
    assert {name.partition("/")[0] for name in task.results} == {"test", "test[left]"}


def test_names_of_subsets():
    names = [section("test", p, ["text", "vision", "audio"]) for p in subsets(["text", "vision", "audio"])]
    assert names[:4] == ["test", "test[text]", "test[vision]", "test[audio]"]
    assert names[4:] == ["test[text+vision]", "test[text+audio]", "test[vision+audio]"]


def test_modality_dropout_never_takes_the_last_input():
    torch.manual_seed(0)
    masks = {"a": torch.ones(4000, 3, dtype=torch.bool), "b": torch.rand(4000, 1) < 0.5}
    kept = drop_inputs(masks, 0.4)
    present = torch.stack([m.any(1) for m in masks.values()], 1)
    after = torch.stack([m.any(1) for m in kept.values()], 1)
    assert not (after & ~present).any()
    assert after.any(1).all()
    both = present.all(1)
    # of two present inputs one drawn at random is safe, the other goes with probability 0.4
    assert (~after[both]).float().mean().item() == pytest.approx(0.2, abs=0.02)


def test_modality_dropout_acts_in_training_only(monkeypatch):
    called = []
    monkeypatch.setattr("mm.tasks.supervised.drop_inputs", lambda masks, p: called.append(p) or masks)
    task = build_task(build_model(), modality_dropout=0.3)
    fit(task, Data(make_batch(), [12]))
    assert called == [0.3]
    Trainer(accelerator="cpu", logger=False, enable_progress_bar=False).test(
        task, datamodule=Data(make_batch(), [12]), verbose=False
    )
    assert called == [0.3]


class Told(Metric):
    """Keeps what it is told."""

    full_state_update = False

    def __init__(self) -> None:
        super().__init__()
        self.add_state("told", [], dist_reduce_fx="cat")

    def update(self, preds: Tensor, target: Tensor) -> None:
        self.told.append(preds)

    def compute(self) -> Tensor:
        return torch.cat(self.told).sum()


def test_a_subset_is_told_by_the_windows_that_have_it():
    """Row 0 has two windows of the left input and three of the right one; row 1 none of the left."""
    batch = make_batch(5)
    left = torch.tensor([[True], [True], [False], [False], [False]])
    batch = batch._replace(
        row=torch.tensor([0, 0, 0, 1, 1]),
        masks={"left": left, "right": torch.ones(5, 1, dtype=torch.bool)},
        targets={"digit": torch.tensor([1, 1, 1, 2, 2])},
    )
    model = build_model()
    more = {"metrics": {"digit": {"told": Told()}}, "unimodal_loss_weight": 0.5}
    task = Supervised(model, lambda groups: torch.optim.SGD(groups), Schedule("constant"), **more).eval()
    task.measure("test", batch)
    none = {"right": torch.zeros(5, 1, dtype=torch.bool)}
    served = part(batch, slice(0, 2))._replace(masks={"left": left[:2], "right": none["right"][:2]})
    wanted = model.merge(model(served.inputs, served.masks), served).predictions["digit"].logits.softmax(-1)
    told = task.scores["test[left]"]["digit"]["told"].told
    torch.testing.assert_close(torch.cat(told), wanted)  # and nothing of row 1
    whole = model.merge(model(batch.inputs, batch.masks), batch).predictions["digit"].logits.softmax(-1)
    torch.testing.assert_close(torch.cat(task.scores["test"]["digit"]["told"].told), whole)
    own = task.unimodal["left"]["digit"]
    f = model.encode(served.inputs, served.masks)["left"]
    alone = own(f).merge(torch.tensor([0, 0]), 1).logits.softmax(-1)
    torch.testing.assert_close(torch.cat(task.unimodal_scores["test[left]"]["digit"]["told"].told), alone)


def test_a_row_whose_target_was_cut_off_is_measured() -> None:
    """Rows 3 to 6: labelled; cut off; unlabelled; without the head's input; and filler."""
    row = torch.tensor([3, 4, 5, 6, -1])
    targets = {"answer": torch.tensor([[1, 0], *[[IGNORE, IGNORE]] * 4])}
    masks = {"text": torch.tensor([[True], [True], [True], [False], [True]])}
    batch = Batch({}, masks, targets, row, {})
    fused = Features(*[torch.zeros(5)] * 4)
    merged = MergedOutput({}, fused, targets, {}, row, torch.arange(5))
    known = SimpleNamespace(is_labelled=lambda name, row: name == "answer" and row != 5)
    task: Any = SimpleNamespace(trainer=SimpleNamespace(datamodule=known))
    for read, wanted in (("text", [True, True, False, False, False]), (None, [True, *[False] * 4])):
        head: Any = SimpleNamespace(input=read)
        assert Supervised.answered(task, "answer", head, merged, batch).tolist() == wanted


def test_every_number_that_counts_for_or_against_has_a_direction() -> None:
    task = build_task(build_model(two_heads=True))
    data = Data(make_batch(), [12])
    Trainer(accelerator="cpu", logger=False, enable_progress_bar=False).test(task, datamodule=data, verbose=False)
    directions = task.directions()
    assert {name for name in task.results if directions[name] is None} == {
        name for name in task.results if name.endswith("/rows")
    }
    assert directions["test[left]/digit/accuracy"] is True and directions["test/loss"] is False
    assert directions["val/digit/f1"] is True and directions["test/size/loss"] is False
