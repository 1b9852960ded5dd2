"""`mm benchmark`: its figures add up, and say what a planted fault makes slow."""

import time
from types import SimpleNamespace

import pytest
import torch
from conftest import COLUMNS, TINY
from omegaconf import OmegaConf
from torch import nn

from mm.cli import _speed
from mm.cli.benchmark import NAMES, bottleneck, measure
from mm.transforms.vision.pixels import Pixels
from mm.types import Batch

SMALL = [*COLUMNS, *TINY, "datamodule.batch_size=12", "steps=10", "warmup=1"]


def test_measures_any_configuration(mm, manifest):
    run = mm("benchmark", *SMALL, f"datamodule.path={manifest}", "run=speed", "trainer.accumulate_grad_batches=2")
    assert run.status == 0, run.err
    found = {name.removeprefix("benchmark/"): value for name, value in run.metrics.items()}
    step = found["step_seconds"]
    assert sum(found[f"{phase}_seconds"] for phase in NAMES) == pytest.approx(step)
    assert min(found[f"{phase}_seconds"] for phase in NAMES) > 0
    assert found["samples_per_second"] * step == pytest.approx(12)  # 36 rows make three batches
    per_sample = found["tokens_per_second"] / found["samples_per_second"]
    assert 9 < per_sample < 12  # "it is red" has 9 bytes, "it is green!!!" 14; ten of twelve rows repeat
    assert found["audio_seconds_per_second"] / found["samples_per_second"] == pytest.approx(0.175, abs=0.02)
    assert found["ratio"] * found["by_hand_seconds"] == pytest.approx(step, rel=0.9)
    assert found["mfu"] == pytest.approx(found["step_flops"] / step / found["attainable_flops_per_second"])
    assert found["peak_bytes"] > 2**26
    assert {f.name for f in run.folder.iterdir()} == {
        "config.yaml",
        "csv",
        "metrics.directions.json",
        "metrics.json",
        "overrides.yaml",
        "report.txt",
    }
    assert (run.folder / "report.txt").read_text() in run.out


def test_what_waits_for_a_validation_is_left_out(mm, manifest):
    run = mm("benchmark", *SMALL, f"datamodule.path={manifest}", "callbacks=[default,early_stopping]")
    assert run.status == 0, run.err


def test_a_slow_transform_is_named(mm, manifest, monkeypatch):
    read = Pixels.__call__
    monkeypatch.setattr(Pixels, "__call__", lambda *args, **how: [time.sleep(0.01), read(*args, **how)][1])
    run = mm("benchmark", *SMALL, f"datamodule.path={manifest}", "run=slow")
    assert "waits for data" in run.out
    assert "raise datamodule.num_workers (now 0" in run.out
    assert run.metrics["benchmark/data_seconds"] > 12 * 0.01
    assert run.metrics["benchmark/ratio"] < 1.5  # the loop by hand waits as well


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["steps=7"], "steps: got 7, wanted a multiple of 10"),
        (["warmup=0"], "warmup: got 0, wanted at least 1"),
        (["trainer.precision=64-true"], "wanted 32-true, bf16-mixed or 16-mixed"),
    ],
)
def test_mistakes(mm, manifest, args, said):
    run = mm("benchmark", *SMALL, f"datamodule.path={manifest}", *args)
    assert (run.status, said in run.err) == (2, True), run.err
    assert "Traceback" not in run.err


def phases(**seconds: float) -> dict[str, float]:
    return dict.fromkeys(NAMES, 0.0) | seconds


def test_figures_are_of_the_median_round():
    rounds = [3.0, 1.0, 2.0, 9.0, 1.5]  # seconds a step
    steps = [phases(data=s / 4, forward=s * 3 / 4) for s in rounds for _ in range(4)]
    hand = [s / h for s, h in zip(rounds, (1.0, 2.0, 4.0, 3.0, 2.0), strict=True) for _ in range(4)]
    figures = measure(steps, hand, [(6.0, 10.0, 0.0)] * 20, processes=2)
    assert figures["step_seconds"] == 2.0
    assert (figures["data_seconds"], figures["forward_seconds"]) == (0.5, 1.5)
    assert figures["samples_per_second"] == 6 * 2 / 2.0
    assert figures["tokens_per_second"] == 10 * 2 / 2.0
    assert "audio_seconds_per_second" not in figures  # there was no sound
    assert figures["ratio"] == 2.0
    assert "ratio" not in measure(steps, [], [(6.0, 0.0, 0.0)] * 20, processes=2)


def test_laps_become_steps():
    laps = [("fetch", 1.0), ("aside", 50.0), ("data", 2.0), ("other", 3.0), ("forward", 4.0), ("optimizer", 5.0)]
    laps += [("backward", 6.0), ("optimizer", 7.0), ("other", 8.0), ("hand", 9.0), ("hand", 10.0), ("fetch", 11.0)]
    steps, hand = _speed.steps_of(laps)
    assert steps == [phases(data=3.0, other=11.0, forward=4.0, optimizer=12.0, backward=6.0), phases(data=11.0)]
    assert hand == [9.0, 10.0]


def test_a_clock_has_no_gaps(monkeypatch):
    ticks = iter([0.0, 1.0, 4.0, 9.0])
    monkeypatch.setattr("mm.cli._speed.time.perf_counter", lambda: next(ticks))
    clock = _speed.Clock(torch.device("cpu"))
    for phase in ("a", "b", "c", "end"):
        clock.mark(phase)
    assert clock.laps() == [("a", 1.0), ("b", 3.0), ("c", 5.0)]


def test_the_loops_take_turns():
    taken = []
    hand = SimpleNamespace(step=lambda batch: taken.append(("hand", batch)))
    bench = SimpleNamespace(
        clock=_speed.Clock(torch.device("cpu")), hand=None, length=6, look=lambda number, batch: None
    )
    for batch in _speed.Turns([0, 1, 2], bench):  # an epoch of three batches, over and over
        taken.append(("mm", batch))
        bench.hand = hand if batch == 1 else bench.hand
    who = ["mm", "mm", "mm", "hand", "hand", "mm", "mm", "hand", "hand", "mm"]
    assert taken == [(side, n % 3) for n, side in enumerate(who)]


class Known(nn.Module):
    """A linear layer and attention, whose FLOPs can be worked out."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(7, 5)
        self.device = torch.device("cpu")
        self.optimizer = torch.optim.SGD(self.parameters(), lr=0.1)

    def loss(self, batch: Batch) -> torch.Tensor:
        out = self.linear(batch.inputs["x"])  # (B, 3, 5)
        heads = out.unsqueeze(1)
        return out.sum() + (
            nn.functional.scaled_dot_product_attention(heads, heads, heads).sum() if self.training else 0
        )


@pytest.mark.parametrize("rows", [6, 20])
def test_flops_are_those_worked_out_by_hand(rows):
    x = torch.randn(rows, 3, 7)
    batch = Batch({"x": x}, {"x": torch.ones(rows, 3).bool()}, {}, torch.arange(rows), {})
    known = Known()
    known.eval()
    linear = 2 * (2 * rows * 3 * 7 * 5)  # forward, and backward to the weights alone: x wants no gradient
    assert _speed.step_flops(known, batch) == linear
    known.train()
    products = 2 * (2 * rows * 3 * 3 * 5)  # of queries with keys, of weights with values
    assert _speed.step_flops(known, batch) == linear + 3 * products  # backward: two products for each


def test_the_matmul_rate_is_a_rate():
    assert _speed.matmul_rate(torch.device("cpu"), torch.float32, seconds=0.01) > 1e7


CONFIG = OmegaConf.create(
    {"datamodule": {"num_workers": 1, "batch_size": 4}, "compile": False}
    | {"trainer": {"log_every_n_steps": 1, "accumulate_grad_batches": 1, "precision": "32-true"}}
)


@pytest.mark.parametrize(
    ("seconds", "mfu", "device", "said"),
    [
        ({"data": 0.4, "forward": 0.6}, 0.5, "cpu", "waits for data 40% of the time: raise datamodule.num_workers"),
        (
            {"other": 0.3, "forward": 0.7},
            0.5,
            "cpu",
            "raise datamodule.batch_size (now 4) or trainer.log_every_n_steps",
        ),
        ({"optimizer": 0.5, "forward": 0.5}, 0.5, "cpu", "50% of the time on the optimizer"),
        ({"forward": 0.5, "backward": 0.5}, 0.5, "cuda", "the model is what it waits for"),
        ({"forward": 0.5, "backward": 0.5}, 0.1, "cuda", "set trainer.precision=bf16-mixed"),
        ({"forward": 0.5, "backward": 0.5}, 0.1, "cpu", "try compile=true"),
    ],
)
def test_the_bottleneck_in_a_sentence(monkeypatch, seconds, mfu, device, said):
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    figures = {f"{phase}_seconds": s for phase, s in phases(**seconds).items()} | {"step_seconds": 1.0, "mfu": mfu}
    told = bottleneck(figures, CONFIG, device)
    assert said in told
    assert told.count(".") - told.count("datamodule.") - told.count("trainer.") - told.count("task.") == 1


def test_more_workers_than_cores_help_nobody(monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    figures = {f"{phase}_seconds": s for phase, s in phases(data=1.0).items()} | {"step_seconds": 1.0, "mfu": 0.1}
    assert "num_workers" not in bottleneck(figures, CONFIG, "cpu")
