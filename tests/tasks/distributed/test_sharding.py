"""Two processes learn what one does, under DDP and FSDP2; blocks, plain copies and activation checkpointing."""

import pickle
import shutil
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from io import BytesIO
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest
import torch
import torch.distributed.checkpoint
from lightning import LightningDataModule, Trainer
from processes import run_two
from timm.optim import Lion, Muon
from timm.optim.muon import zeropower_via_newtonschulz
from torch import nn
from torch.distributed.checkpoint.metadata import _MEM_FORMAT_ENCODING
from torch.utils.data import DataLoader
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score

from mm.encoders.text.transformer import TextTransformer
from mm.encoders.vision.conv import VisionConv
from mm.fusion.concat import ConcatFusion
from mm.fusion.gated import GatedFusion
from mm.fusion.transformer import TransformerFusion
from mm.heads.classification import ClassificationHead
from mm.heads.regression import RegressionHead
from mm.model import MultimodalModel
from mm.tasks.distributed.sharding import (
    FSDP2Strategy,
    ShardIndex,
    blocks,
    checkpoint_activations,
    complete,
    keep_plain,
    read_index,
    replace,
    share_statistics,
    units,
)
from mm.tasks.optim.schedule import Schedule
from mm.tasks.supervised import Supervised
from mm.types import IGNORE, Batch, DataSpec, TargetData

ROWS = 12
# Muon computes in bfloat16, whose rounding is another one for a matrix in two parts.
zeropower_via_newtonschulz.__defaults__ = tuple(
    torch.float32 if value is torch.bfloat16 else value for value in zeropower_via_newtonschulz.__defaults__
)
SGD = partial(torch.optim.SGD, lr=1.0)  # the difference of weights is the gradient


def build_model(
    fusion: Callable[..., nn.Module] = ConcatFusion, pool: str = "mean", only: tuple[str, ...] = ()
) -> MultimodalModel:
    torch.manual_seed(0)
    encoders = {
        "text": TextTransformer(8, num_layers=2, num_heads=2, dropout=0.0, max_length=None, pool=pool),
        "vision": VisionConv(channels=1, widths=[4], depth=0, groups=2, pool="mean"),
    }
    heads = {
        "digit": ClassificationHead(classes=["a", "b", "c"], embed_dim=8),
        "size": RegressionHead(embed_dim=8, mean=0.0, std=1.0, criterion="mse", weight=0.5),
    }
    heads = {name: head for name, head in heads.items() if name in (only or heads)}
    return MultimodalModel(encoders, fusion(inputs=["text", "vision"], embed_dim=8), heads, embed_dim=8)


def make_batch(digit: tuple[int, ...] = (), size: tuple[int, ...] = (), absent: tuple[int, ...] = ()) -> Batch:
    """ROWS rows; digit, size: those that are unlabelled; absent: those without an image."""
    generator = torch.Generator().manual_seed(1)
    targets = {
        "digit": torch.randint(0, 3, (ROWS,), generator=generator),
        "size": torch.randn(ROWS, generator=generator),
    }
    targets["digit"][list(digit)] = IGNORE
    targets["size"][list(size)] = torch.nan
    inputs = {
        "text": torch.randint(1, 257, (ROWS, 5), generator=generator),
        "vision": torch.randn(ROWS, 1, 6, 6, generator=generator),
    }
    length = torch.randint(1, 6, (ROWS, 1), generator=generator)
    masks = {"text": torch.arange(5) < length, "vision": torch.ones(ROWS, 1, dtype=torch.bool)}
    masks["vision"][list(absent)] = False
    return Batch(inputs, masks, targets, torch.arange(ROWS), {})


def rows(batch: Batch, chosen: list[int]) -> Batch:
    return Batch(*({n: x[chosen] for n, x in d.items()} for d in batch[:3]), batch.row[chosen], {})


class Case(NamedTuple):
    """A batch, which of its rows each of two processes gets in each step, and how it is learnt."""

    batch: Batch
    shares: list[list[list[int]]]  # process -> step -> rows
    options: Mapping[str, Any] = MappingProxyType({})
    optimizer: Callable[..., torch.optim.Optimizer] = SGD
    task: Mapping[str, Any] = MappingProxyType({})
    fusion: Callable[..., nn.Module] = ConcatFusion
    tolerance: float = 1e-5
    pool: str = "mean"
    only: tuple[str, ...] = ()  # heads

    def model(self) -> MultimodalModel:
        return build_model(self.fusion, self.pool, self.only)

    def alone(self) -> list[list[int]]:
        """What one process gets instead: the rows of both, step by step."""
        return [a + b for a, b in zip(*self.shares, strict=True)]


def halves(*steps: tuple[int, int, int]) -> list[list[list[int]]]:
    """(start, middle, end) of each step -> shares"""
    return [[list(range(a, b)) for a, b, _ in steps], [list(range(b, c)) for _, b, c in steps]]


WHOLE = halves((0, 6, 12))
TOKEN_FUSION = partial(TransformerFusion, dropout=0.0)  # processes draw other dropout masks than one does
STEPS = halves((0, 3, 6), (6, 8, 12), (0, 6, 12))
ALL = tuple(range(ROWS))
CASES = {
    "plain": Case(make_batch(), WHOLE),
    "uneven rows": Case(make_batch(), halves((0, 8, 12))),
    "one has no label of either head": Case(make_batch(digit=ALL[6:], size=ALL[6:]), WHOLE),
    "each has labels of another head": Case(make_batch(digit=ALL[6:], size=ALL[:6]), WHOLE),
    "unevenly unlabelled": Case(make_batch(digit=(0, 1, 2, 8), size=(3, 4, 5, 6, 7)), halves((0, 5, 12))),
    "nobody has a label of one head": Case(make_batch(size=ALL), WHOLE),
    "one lacks an input": Case(make_batch(absent=ALL[6:]), WHOLE),
    "accumulation": Case(
        make_batch(digit=(1, 2, 3), size=(5, 9)), halves((0, 3, 6), (6, 10, 12)), {"accumulate_grad_batches": 2}
    ),
    "accumulation of one head": Case(
        make_batch(digit=(1, 2, 3)), halves((0, 3, 6), (6, 10, 12)), {"accumulate_grad_batches": 2}, only=("digit",)
    ),
    "measured before it learns": Case(make_batch(), WHOLE, {"num_sanity_val_steps": 1, "limit_val_batches": 1}),
    "several steps, clipped": Case(make_batch(), STEPS, {"gradient_clip_val": 0.1}, task={"lr_scale": [["^enc", 0.5]]}),
    "checkpointed": Case(make_batch(), WHOLE, task={"activation_checkpointing": [r"blocks\.\d+$", "vision"]}),
    "token fusion": Case(make_batch(absent=(0, 7, 8)), WHOLE, fusion=TOKEN_FUSION),
    "frozen": Case(make_batch(), STEPS, task={"freeze": [r"^encoders\.text"]}),
    "momentum": Case(make_batch(), STEPS, optimizer=partial(SGD, lr=0.1, momentum=0.9, nesterov=True, fused=True)),
    "adamw": Case(make_batch(), STEPS, optimizer=partial(torch.optim.AdamW, lr=1e-2, eps=1e-4, fused=True)),
    "lion": Case(make_batch(), STEPS, optimizer=partial(Lion, lr=1e-3)),
    "muon": Case(make_batch(), STEPS, optimizer=partial(Muon, lr=1e-1), tolerance=1e-3),
}
UNREACHED = Case(make_batch(), WHOLE, fusion=TOKEN_FUSION, pool="attention")  # whose result nothing reads
CASES["no gradient in places"] = UNREACHED


class Data(LightningDataModule):
    """Batches of one process."""

    spec = DataSpec(inputs={}, targets={"digit": TargetData(kind="class"), "size": TargetData(kind="number")})

    def __init__(self, batches: list[Batch]):
        super().__init__()
        self.batches = batches

    def loader(self, split: str = "train", train: bool = False) -> DataLoader:
        return DataLoader(self.batches, batch_size=None)

    def train_dataloader(self):
        return self.loader()

    val_dataloader = test_dataloader = train_dataloader


def learn(case: Case, share: list[list[int]], strategy: Any = "auto", devices: int = 1) -> tuple[Any, dict[str, float]]:
    """-> weights after one epoch, in the first process, and what the test then measures"""
    model = case.model()
    metrics = {"digit": {"accuracy": MulticlassAccuracy(3), "f1": MulticlassF1Score(3)}, "size": {}}
    metrics = {name: metrics[name] for name in model.heads}
    task = Supervised(model, case.optimizer, Schedule("constant"), metrics=metrics, **dict(case.task))
    usual = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    usual |= {"enable_model_summary": False, "limit_val_batches": 0, "num_sanity_val_steps": 0}
    trainer = Trainer(
        max_epochs=1,
        accelerator="cpu",
        devices=devices,
        strategy=strategy,
        use_distributed_sampler=False,
        **usual | dict(case.options),
    )
    data = Data([rows(case.batch, chosen) for chosen in share])
    trainer.fit(task, datamodule=data)
    trainer.test(task, datamodule=data, verbose=False)
    model = trainer.strategy.gather_model(task.model) if isinstance(trainer.strategy, FSDP2Strategy) else task.model
    return {name: x.detach().clone() for name, x in model.state_dict().items()}, task.results


def worker(rank: int, folder: Path) -> None:
    """One of two processes: every case, under DDP and FSDP2."""
    for name, case in CASES.items():
        for kind in ("ddp", "fsdp"):
            strategy = (
                kind if kind == "ddp" else FSDP2Strategy(cpu_offload=name == "adamw", save_distributed_checkpoint=True)
            )
            if (name, kind) == ("no gradient in places", "ddp"):
                strategy = "ddp_find_unused_parameters_true"
            found = learn(case, case.shares[rank], strategy, devices=2)
            if rank == 0:
                torch.save(found, folder / f"{kind} {name}")
    norm = nn.BatchNorm1d(2)
    torch.nn.init.constant_(norm.running_mean, rank)
    share_statistics(norm)
    try:
        learn(UNREACHED, UNREACHED.shares[rank], "ddp", devices=2)
        raise AssertionError("DDP was let wait")
    except ValueError as error:
        torch.save((norm.running_mean, str(error)), folder / f"end {rank}")


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes learnt: a file per case and strategy."""
    return run_two(worker, tmp_path_factory.mktemp("together"))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
@pytest.mark.parametrize("name", CASES)
def test_two_processes_learn_and_measure_what_one_does(together, name, kind, recwarn):
    warnings.filterwarnings("ignore")
    weights, results = learn(CASES[name], CASES[name].alone())
    found, measured = torch.load(together / f"{kind} {name}", weights_only=True)
    assert found.keys() == weights.keys()
    start = CASES[name].model().state_dict()
    assert any((weights[n] - start[n]).abs().max() > 20 * CASES[name].tolerance for n in start)
    # The bias of keys moves every score alike: its gradient is rounding, of which these optimizers keep the sign.
    named = [n for n in weights if CASES[name].optimizer is SGD or "key_value.bias" not in n]
    for n in named:
        torch.testing.assert_close(
            found[n], weights[n], atol=CASES[name].tolerance, rtol=0, msg=lambda m, n=n: f"{n}: {m}"
        )
    assert measured.keys() == results.keys()
    for n in results:
        assert measured[n] == pytest.approx(results[n], abs=CASES[name].tolerance), n


@pytest.mark.slow
def test_statistics_are_shared_and_what_ddp_would_wait_for_is_named(together):
    for rank in (0, 1):
        statistics, message = torch.load(together / f"end {rank}", weights_only=True)
        assert statistics.tolist() == [0, 0]
        assert "no gradient reaches encoders.text.pool.query.weight, encoders.text.pool.query.bias" in message
        assert "ddp_find_unused_parameters_true" in message


def grown(model: MultimodalModel, batch: Batch) -> dict[str, torch.Tensor]:
    """Gradients of a loss of everything that the model predicts."""
    torch.manual_seed(1)
    output = model(batch.inputs, batch.masks)
    sum(x.square().sum() for p in output.predictions.values() for x in p if x is not None).backward()
    return {name: p.grad for name, p in model.named_parameters()}


@pytest.mark.parametrize("rules", [[r"^encoders\.text\.blocks\.\d+$", "fusion"], ["^encoders"]])
def test_checkpointed_activations_change_no_gradient_and_no_name(rules):
    plain, frugal = build_model(), build_model()
    for model in (plain, frugal):
        for module in model.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.3
    checkpoint_activations(frugal, rules)
    assert list(frugal.state_dict()) == list(plain.state_dict())
    kept = {"plain": 0, "frugal": 0}
    found = {}
    for name, model in (("plain", plain), ("frugal", frugal)):

        def count(x, name=name):
            kept[name] += x.numel()
            return x

        with torch.autograd.graph.saved_tensors_hooks(count, lambda x: x):
            found[name] = grown(model, make_batch())
    for name, gradient in found["plain"].items():
        torch.testing.assert_close(found["frugal"][name], gradient, atol=0, rtol=0, msg=name)
    assert kept["frugal"] < 0.7 * kept["plain"]


def test_only_the_outermost_module_is_checkpointed():
    model = build_model()
    checkpoint_activations(model, ["^encoders.text"])
    assert [n for n, m in model.named_modules() if "forward" in vars(m)] == ["encoders.text"]


@pytest.mark.parametrize("rule", ["encoder.text", r"^encoders\.text\.blocks$", "("])
def test_a_rule_that_finds_nothing_is_refused(rule):
    with pytest.raises(ValueError, match=r"task.activation_checkpointing: '.*' (finds no module|is no regular)"):
        checkpoint_activations(build_model(), [rule])


def test_batch_norm_is_not_computed_twice():
    model = build_model()
    model.fusion.norm = nn.BatchNorm1d(2)
    with pytest.raises(ValueError, match="fusion has a batch norm"):
        checkpoint_activations(model, ["fusion"])


def test_units_are_blocks_then_parts_then_the_model():
    assert units(build_model(TransformerFusion)) == [
        "encoders.text.blocks.0",
        "encoders.text.blocks.1",
        "encoders.text",
        "encoders.vision",
        "projections.text",
        "projections.vision",
        "heads.digit",
        "heads.size",
        "fusion.blocks.0",
        "fusion.blocks.1",
        "fusion",
        "",
    ]


def test_blocks_are_repeated_composed_and_outermost():
    layer = partial(nn.TransformerEncoderLayer, 8, 2)
    stage = nn.Sequential(nn.Sequential(nn.Linear(8, 8)), nn.Sequential(nn.Linear(8, 8)))
    assert blocks(nn.TransformerEncoder(layer(), 3, enable_nested_tensor=False)) == [f"layers.{i}" for i in range(3)]
    assert blocks(nn.Sequential(stage, nn.Sequential(nn.Linear(8, 8)))) == ["0", "1"]
    assert blocks(nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))) == []  # single layers
    assert blocks(GatedFusion(inputs=["a", "b"], embed_dim=8)) == []
    assert blocks(nn.ModuleList([layer()])) == []  # nothing is repeated


def test_a_plain_copy_takes_weights_buffers_and_ties_and_holds_none_itself():
    model = build_model()
    model.register_buffer("seen", torch.zeros(2))
    model.fusion.tied = model.projections["text"]
    model.projections["text"].weight.requires_grad_(False)
    rebuild = keep_plain(model)
    state = {name: torch.randn_like(x) for name, x in model.state_dict().items()}
    state["fusion.tied.weight"], state["fusion.tied.bias"] = (
        state[f"projections.text.{n}"] for n in ("weight", "bias")
    )
    copy = rebuild(state)
    assert copy.state_dict().keys() == state.keys()
    for name, x in copy.state_dict().items():
        torch.testing.assert_close(x, state[name], atol=0, rtol=0, msg=name)
    assert copy.fusion.tied.weight is copy.projections["text"].weight
    assert not copy.projections["text"].weight.requires_grad
    assert copy.projections["vision"].weight.requires_grad


def test_a_torn_folder_is_known(tmp_path):
    part = tmp_path / "a.part"
    warnings.filterwarnings("ignore", ".*torch.distributed is disabled.*")
    torch.distributed.checkpoint.save({"weight": torch.randn(1000)}, checkpoint_id=part, no_dist=True)
    assert not complete(part)  # without the rest
    torch.save({}, part / "meta.pt")
    assert complete(part)
    (tmp_path / "a").mkdir()
    replace(part, tmp_path / "a")
    assert [f.name for f in tmp_path.iterdir()] == ["a"]
    assert complete(tmp_path / "a")
    shard = next((tmp_path / "a").glob("*.distcp"))
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-1])
    assert not complete(tmp_path / "a")
    shard.write_bytes(whole)
    index = tmp_path / "a/.metadata"
    index.write_bytes(index.read_bytes()[:-50])
    assert not complete(tmp_path / "a")
    index.unlink()
    assert not complete(tmp_path / "a")


class Runs:
    """A pickle of it runs a function when it is read."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("where", ["index", "state", "path"])
def test_a_strangers_sharded_checkpoint_runs_nothing(tmp_path, where):
    warnings.filterwarnings("ignore", ".*torch.distributed is disabled.*")
    ran, folder = tmp_path / "ran", tmp_path / "a"
    state = {"weight": torch.randn(10), "lr": 0.1, "group": {"betas": (0.9, 0.99), "name": "all"}}
    torch.distributed.checkpoint.save(state, checkpoint_id=folder, no_dist=True)
    torch.save({}, folder / "meta.pt")
    assert complete(folder)  # also with plain data beside its tensors
    if where == "state":
        state |= {"lr": Runs(ran.touch)}
        shutil.rmtree(folder)
        torch.distributed.checkpoint.save(state, checkpoint_id=folder, no_dist=True)
        torch.save({}, folder / "meta.pt")
    index = folder / ".metadata"
    if where == "index":
        index.write_bytes(pickle.dumps(Runs(ran.touch)))
    if where == "path":
        index.write_bytes(index.read_bytes().replace(b"__0_0.distcp", b"../_0.distcp"))
    assert not complete(folder)
    with pytest.raises(ValueError, match="is damaged, or not of mm"):
        read_index(folder)
    assert not ran.exists()


def test_an_index_reads_members_of_an_enum_and_no_other_attribute():
    """Python 3.11.0 to 3.11.3 pickle such a member by `getattr`."""

    def read(owner, name):
        return ShardIndex(BytesIO(pickle.dumps(Runs(getattr, owner, name)))).load()

    assert read(_MEM_FORMAT_ENCODING, "TORCH_PRESERVE_FORMAT") is _MEM_FORMAT_ENCODING.TORCH_PRESERVE_FORMAT
    for name in ("__subclasses__", "mro"):
        with pytest.raises(KeyError):
            read(_MEM_FORMAT_ENCODING, name)
    with pytest.raises(ValueError, match="which is no Enum"):
        read(torch.float32, "to_complex")
