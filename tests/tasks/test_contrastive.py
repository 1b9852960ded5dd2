"""The contrastive task: two processes learn what one does, chunks what the whole batch does, retrieval is measured."""

import warnings
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from lightning import LightningDataModule, Trainer
from processes import run_two
from torch import nn
from torch.utils.data import DataLoader

from mm.encoders.text.transformer import TextTransformer
from mm.encoders.vision.conv import VisionConv
from mm.fusion.concat import ConcatFusion
from mm.fusion.sum import SumFusion
from mm.losses.info_nce import InfoNCE
from mm.losses.siglip import SigLIP
from mm.losses.symile import Symile
from mm.metrics.retrieval import Retrieval
from mm.model import MultimodalModel
from mm.tasks import contrastive
from mm.tasks.contrastive import Contrastive
from mm.tasks.nonfinite import NonFinite
from mm.tasks.optim.schedule import Schedule
from mm.types import IGNORE, Batch

ROWS = 12
INPUTS = ["text", "vision", "sound"]
SGD = partial(torch.optim.SGD, lr=1.0)  # the difference of weights is the gradient


def build_model(dropout: float = 0.0, inputs: list[str] = INPUTS, fusion: type = SumFusion):
    torch.manual_seed(0)
    conv = partial(VisionConv, channels=1, widths=[4], depth=0, groups=2, pool="mean")
    encoders = {
        "text": TextTransformer(8, num_layers=2, num_heads=2, dropout=dropout, max_length=None, pool="mean"),
        "vision": conv(),
        "sound": conv(),
    }
    extra = {} if fusion is SumFusion else {"embed_dim": 8}
    chosen = {name: encoders[name] for name in inputs}
    return MultimodalModel(chosen, fusion(inputs=inputs, **extra), {}, embed_dim=8)


def build_task(loss: nn.Module | None = None, dropout: float = 0.0, optimizer: Any = SGD, **more: Any) -> Contrastive:
    model = build_model(dropout)
    torch.manual_seed(0)
    return Contrastive(model, optimizer, Schedule("constant"), retrieval=Retrieval(), loss=loss or InfoNCE(), **more)


def make_batch(absent: bool = False, filler: int = 0, rows: int = ROWS) -> Batch:
    """absent: a third of vision, a quarter of text and one sound are lacking; filler: rows at the end that are none."""
    generator = torch.Generator().manual_seed(1)
    inputs = {
        "text": torch.randint(1, 257, (rows, 5), generator=generator),
        "vision": torch.randn(rows, 1, 6, 6, generator=generator),
        "sound": torch.randn(rows, 1, 6, 6, generator=generator),
    }
    length = torch.randint(1, 6, (rows, 1), generator=generator)
    masks = {"text": torch.arange(5) < length} | {n: torch.ones(rows, 1).bool() for n in ("vision", "sound")}
    targets = {"digit": torch.randint(0, 4, (rows,), generator=generator), "size": torch.randn(rows)}
    row = torch.arange(rows)
    if absent:
        masks["vision"][1::3] = False
        masks["text"][2::4] = False
        masks["sound"][0] = False
    if filler:
        row[-filler:] = -1
        targets["digit"][-filler:] = IGNORE
    return Batch(inputs, masks, targets, row, {})


def rows(batch: Batch, chosen: Any) -> Batch:
    return Batch(*({n: x[chosen] for n, x in d.items()} for d in batch[:3]), batch.row[chosen], {})


class Data(LightningDataModule):
    """Batches of one process."""

    ids = tuple(f"r{i}" for i in range(ROWS))

    def __init__(self, batches: list[Batch]):
        super().__init__()
        self.batches = batches

    def loader(self, split: str = "train", train: bool = False) -> DataLoader:
        return DataLoader(self.batches, batch_size=None)

    def train_dataloader(self):
        return self.loader()

    val_dataloader = test_dataloader = train_dataloader


def learn(task: Contrastive, batches: list[Batch], **options: Any) -> tuple[dict[str, torch.Tensor], dict[str, float]]:
    """-> weights of model and loss after one epoch, and what the test then measures"""
    usual = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "accelerator": "cpu"}
    usual |= {"enable_model_summary": False, "limit_val_batches": 0, "use_distributed_sampler": False}
    trainer = Trainer(max_epochs=1, **usual | options)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*does not have many workers.*")
        warnings.filterwarnings("ignore", ".*number of training batches.*")
        trainer.fit(task, datamodule=Data(batches))
        trainer.test(task, datamodule=Data(batches), verbose=False)
    weights = {n: x.detach().clone() for n, x in task.state_dict().items() if n.startswith(("model", "loss"))}
    return weights, task.results


def same(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor], tolerance: float = 1e-5) -> None:
    start = build_task().state_dict()
    assert found.keys() == wanted.keys()
    assert sum((wanted[n] - start[n]).abs().max() > 20 * tolerance for n in wanted if n in start) > 10
    for name in wanted:
        torch.testing.assert_close(found[name], wanted[name], atol=tolerance, rtol=0, msg=lambda m, n=name: f"{n}: {m}")


class Case(NamedTuple):
    """How two processes share the rows of each step, and how they learn."""

    loss: Any = InfoNCE
    shares: tuple[list[tuple[int, int]], list[tuple[int, int]]] = ([(0, 6)], [(6, 12)])  # of each process and step
    batch: Batch = make_batch()
    more: dict[str, Any] = {}  # noqa: RUF012
    options: dict[str, Any] = {}  # noqa: RUF012


LACKING = make_batch(absent=True, filler=2)
UNEVEN = ([(0, 8), (0, 3)], [(8, 12), (3, 12)])
CASES = {
    "info_nce": Case(),
    "uneven, absent, filler": Case(shares=UNEVEN, batch=LACKING),
    "one has only filler": Case(shares=([(0, 10)], [(10, 12)]), batch=LACKING),
    "labels left out, in blocks": Case(partial(InfoNCE, chunk_rows=2), UNEVEN, LACKING, {"label": "digit"}),
    "labels positive": Case(partial(InfoNCE, same_label_pairs="positive"), batch=LACKING, more={"label": "digit"}),
    "siglip": Case(partial(SigLIP, chunk_rows=5), UNEVEN, LACKING, {"label": "digit"}),
    "symile": Case(Symile, UNEVEN, LACKING),
    "symile, accumulated": Case(Symile, UNEVEN, LACKING, options={"accumulate_grad_batches": 2}),
    "every combination": Case(partial(Symile, negatives="all"), batch=LACKING),
    "chunks": Case(shares=UNEVEN, batch=LACKING, more={"chunk_size": 3}),
    "accumulated, clipped": Case(
        shares=UNEVEN, options={"accumulate_grad_batches": 2, "gradient_clip_val": 0.1}, more={"chunk_size": 3}
    ),
}


def worker(rank: int, folder: Path) -> None:
    """One of two processes: every case."""
    for name, case in CASES.items():
        share = [rows(case.batch, slice(*step)) for step in case.shares[rank]]
        found = learn(build_task(case.loss(), **case.more), share, strategy="ddp", devices=2, **case.options)
        if rank == 0:
            torch.save(found, folder / name)
    blown = rows(make_batch(), slice(6 * rank, 6 * rank + 6))
    if rank == 1:
        blown.inputs["vision"][3] = torch.inf
    try:
        learn(
            build_task(nonfinite=NonFinite("raise", str(folder / f"blown {rank}"), 3)),
            [blown],
            strategy="ddp",
            devices=2,
        )
        raise AssertionError("the loss was taken")
    except (ValueError, torch.distributed.DistError) as error:
        torch.save(str(error), folder / f"end {rank}")


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes learnt: a file per case."""
    return run_two(worker, tmp_path_factory.mktemp("together"))


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_two_processes_learn_and_measure_what_one_does(together, name):
    case = CASES[name]
    whole = [rows(case.batch, [*range(*a), *range(*b)]) for a, b in zip(*case.shares, strict=True)]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*adds no negatives.*")
        weights, results = learn(build_task(case.loss(), **case.more), whole, **case.options)
    found, measured = torch.load(together / name, weights_only=True)
    same(found, weights)
    assert measured.keys() == results.keys()
    for n in results:
        assert measured[n] == pytest.approx(results[n], abs=1e-5, rel=1e-5), n


@pytest.mark.slow
def test_of_a_loss_that_is_not_finite_the_process_is_told_whose_row_it_is(together):
    said = [torch.load(together / f"end {rank}", weights_only=True) for rank in (0, 1)]
    assert said[0] == "the loss of step 0 is not finite in another process"
    assert "r9" in said[1]
    assert "first in model.encoders.vision" in said[1]


LOSSES = {"info_nce": InfoNCE, "siglip": SigLIP, "symile": Symile}


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
@pytest.mark.parametrize("size", [1, 5, 100])
def test_chunks_learn_what_the_batch_does(loss, size):
    batch = make_batch(absent=True, filler=1)
    whole, measured = learn(build_task(loss()), [batch])
    found, again = learn(build_task(loss(), chunk_size=size), [batch])
    same(found, whole)
    assert again == pytest.approx(measured, abs=1e-5)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_cached_gradients_are_the_direct_ones_with_the_same_dropout(monkeypatch, precision):
    batch = make_batch(absent=True)
    found, _ = learn(build_task(dropout=0.4, chunk_size=5), [batch], precision=precision)
    called = []
    monkeypatch.setattr(
        contrastive, "checkpoint", lambda compute, *args, use_reentrant: called.append(1) or compute(*args)
    )
    direct, _ = learn(build_task(dropout=0.4, chunk_size=5), [batch], precision=precision)
    assert len(called) == 3
    same(found, direct)
    still, _ = learn(build_task(chunk_size=5), [batch], precision=precision)
    assert any((still[n] - found[n]).abs().max() > 1e-3 for n in found)  # dropout was on


def test_of_a_chunk_nothing_is_kept_but_its_vectors():
    batch = make_batch(rows=48)
    kept = {}
    for size in (None, 4):
        task = build_task(chunk_size=size)
        kept[size] = 0

        def count(x, size=size):
            kept[size] += x.numel() if x.is_floating_point() else 0
            return x

        with torch.autograd.graph.saved_tensors_hooks(count, lambda x: x):
            task.encode(batch)
    assert kept[4] < 0.05 * kept[None]


def test_the_loss_is_the_mean_over_pairs_of_what_is_there():
    batch = make_batch(absent=True, filler=2)
    task = build_task()
    task.eval()
    features = task.model(batch.inputs, batch.masks).features
    wanted = []
    for a, b in (("text", "vision"), ("text", "sound"), ("vision", "sound")):
        both = batch.masks[a].any(1) & batch.masks[b].any(1) & (batch.row >= 0)
        x, y = (F.normalize(features[n].pooled[both], dim=-1) for n in (a, b))
        logits, place = 14.3 * x @ y.T, torch.arange(int(both.sum()))
        wanted.append((F.cross_entropy(logits, place) + F.cross_entropy(logits.T, place)) / 2)
    _, results = learn(build_task(optimizer=partial(SGD, lr=0.0)), [batch])
    for name, value in zip(("text+vision", "text+sound", "vision+sound"), wanted):
        assert results[f"test/{name}/loss"] == pytest.approx(value.item(), abs=1e-5)
    assert results["test/loss"] == pytest.approx(torch.stack(wanted).mean().item(), abs=1e-5)


def test_accumulation_says_once_that_it_adds_no_negatives():
    batch = make_batch()
    with pytest.warns(UserWarning, match=r"accumulate_grad_batches=2 adds no negatives.*task.chunk_size") as said:
        learn(build_task(), [rows(batch, slice(0, 6)), rows(batch, slice(6, 12))] * 2, accumulate_grad_batches=2)
    assert sum("negatives" in str(one.message) for one in said) == 1


def test_retrieval_is_that_of_all_batches_together():
    batch = make_batch(absent=True, filler=1)
    task = build_task()
    _, results = learn(task, [rows(batch, slice(0, 5)), rows(batch, slice(5, 12))])
    vectors, present, row = task.embedded
    assert sorted(row.tolist()) == list(range(11))
    metric = Retrieval()
    metric.update(vectors, present, row)
    wanted = metric.compute()
    assert len(wanted) == 6
    for (a, b), values in wanted.items():
        for name, value in values.items():
            assert results[f"test[{INPUTS[a]}->{INPUTS[b]}]/{name}"] == pytest.approx(value.item())
    mean = torch.stack([values["recall@1"] for values in wanted.values()]).mean().item()
    assert results["test/recall@1"] == pytest.approx(mean)


def test_windows_of_a_row_are_one_item():
    batch = make_batch(rows=6)
    batch = batch._replace(row=torch.tensor([0, 0, 1, 2, 2, -1]))
    task = build_task(optimizer=partial(SGD, lr=0.0))
    learn(task, [batch])
    vectors, present, row = task.embedded
    assert row.tolist() == [0, 1, 2]
    assert present.all()
    each, _ = task.eval().unit(batch.inputs, batch.masks)
    torch.testing.assert_close(vectors[0], F.normalize(each[:2].mean(0), dim=-1))
    torch.testing.assert_close(vectors[1], each[2])


def test_rows_of_the_same_text_share_their_rank() -> None:
    batch = make_batch()
    batch.inputs["text"][:8], batch.masks["text"][:8] = batch.inputs["text"][0], batch.masks["text"][0]
    task = build_task(optimizer=partial(SGD, lr=0.0))
    _, results = learn(task, [rows(batch, slice(0, 5)), rows(batch, slice(5, 12))])
    vectors, present, row = task.embedded
    content = torch.arange(ROWS)[:, None].repeat(1, 3)
    content[:8, 0] = 0
    metric = Retrieval()
    metric.update(vectors, present, row, content[row])
    for (a, b), values in metric.compute().items():
        for name, value in values.items():
            assert results[f"test[{INPUTS[a]}->{INPUTS[b]}]/{name}"] == pytest.approx(float(value))
    assert results["test[vision->text]/chance@1"] > 1 / ROWS


def test_names_of_validation_are_those_that_are_logged():
    task = build_task()
    seen = {}
    task.log_dict = lambda values: seen.update(values)  # type: ignore[method-assign]
    task.trainer = Trainer(accelerator="cpu", logger=False, enable_progress_bar=False)
    task.measure("val", make_batch())
    task.on_validation_epoch_end()
    assert seen.keys() == task.val_names().keys()
    assert task.val_names()["val[text->vision]/recall@1"] is True
    assert task.val_names()["val[text->vision]/median_rank"] is False
    assert list(task.val_names())[:2] == ["val/loss", "val/recall@1"]


def test_the_temperature_is_in_the_optimizer_without_decay_and_in_the_checkpoint():
    task = build_task(optimizer=partial(torch.optim.AdamW, lr=1e-3, weight_decay=0.5))
    task.trainer = Trainer(accelerator="cpu", logger=False, enable_progress_bar=False)
    task.trainer.strategy.connect(task)
    task.trainer.datamodule = Data([make_batch()])
    groups = task.configure_optimizers()["optimizer"].param_groups
    decay = [g["weight_decay"] for g in groups if any(p is task.loss.temperature.log for p in g["params"])]
    assert decay == [0.0]
    assert "loss.temperature.log" in task.state_dict()
    how = {"retrieval": {"_target_": "mm.metrics.retrieval.Retrieval"}, "label": None, "group": None}
    assert task.kept(how | {"chunk_size": 8}) == how | {"scale": pytest.approx(14.3)}


@pytest.mark.parametrize(
    ("model", "more", "said"),
    [
        ({"inputs": ["text"]}, {}, "there is only text"),
        ({"fusion": ConcatFusion}, {}, "nothing would train ConcatFusion; leave model/fusion out"),
        ({}, {"chunk_size": 0}, "task.chunk_size: got 0"),
    ],
)
def test_what_can_not_be_trained_so_is_refused(model, more, said):
    with pytest.raises(ValueError, match=said):
        Contrastive(build_model(**model), retrieval=Retrieval(), **more)


def test_batch_norm_is_not_chunked():
    model = build_model()
    model.projections["text"] = nn.Sequential(model.projections["text"], nn.BatchNorm1d(8))
    with pytest.raises(ValueError, match=r"projections.text.1 is a batch norm"):
        Contrastive(model, retrieval=Retrieval(), chunk_size=2)


def test_a_loss_that_is_not_finite_is_told(tmp_path):
    batch = make_batch()
    batch.inputs["vision"][3] = torch.inf
    data = Data([batch])
    task = build_task(chunk_size=5, nonfinite=NonFinite("raise", str(tmp_path), 3))
    trainer = Trainer(max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False, limit_val_batches=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(ValueError, match=r"first in model.encoders.vision"):
            trainer.fit(task, datamodule=data)
