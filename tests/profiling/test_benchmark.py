"""Figures of a profile: a timeline without gaps, the median round, FLOPs, and the sentence about the bottleneck."""

import json

import pytest
import torch
from torch import nn

from mm.profiling.benchmark import NAMES, Profile, Settings, bottleneck, summarize
from mm.profiling.flops import matmul_rate, step_flops
from mm.profiling.timeline import AlternatingRounds, Timer, split_steps
from mm.types import Batch


def phases(**seconds: float) -> dict[str, float]:
    return dict.fromkeys(NAMES, 0.0) | seconds


def test_figures_are_of_the_median_round():
    rounds = [3.0, 1.0, 2.0, 9.0, 1.5]  # seconds a step
    steps = [phases(data=s / 4, forward=s * 3 / 4) for s in rounds for _ in range(4)]
    hand = [s / h for s, h in zip(rounds, (1.0, 2.0, 4.0, 3.0, 2.0), strict=True) for _ in range(4)]
    figures = summarize(steps, hand, [(6.0, 10.0, 0.0)] * 20, processes=2)
    assert figures["step_seconds"] == 2.0
    assert (figures["data_seconds"], figures["forward_seconds"]) == (0.5, 1.5)
    assert figures["samples_per_second"] == 6 * 2 / 2.0
    assert figures["tokens_per_second"] == 10 * 2 / 2.0
    assert "audio_seconds_per_second" not in figures  # there was no sound
    assert figures["ratio"] == 2.0
    assert "ratio" not in summarize(steps, [], [(6.0, 0.0, 0.0)] * 20, processes=2)


def test_splits_become_steps():
    splits = [("fetch", 1.0), ("aside", 50.0), ("data", 2.0), ("other", 3.0), ("forward", 4.0), ("optimizer", 5.0)]
    splits += [
        ("backward", 6.0),
        ("optimizer", 7.0),
        ("other", 8.0),
        ("reference", 9.0),
        ("reference", 10.0),
        ("fetch", 11.0),
    ]
    steps, hand = split_steps(splits)
    assert steps == [phases(data=3.0, other=11.0, forward=4.0, optimizer=12.0, backward=6.0), phases(data=11.0)]
    assert hand == [9.0, 10.0]


def test_a_timer_has_no_gaps(monkeypatch):
    ticks = iter([0.0, 1.0, 4.0, 9.0])
    monkeypatch.setattr("mm.profiling.timeline.time.perf_counter", lambda: next(ticks))
    timer = Timer(torch.device("cpu"))
    for phase in ("a", "b", "c", "end"):
        timer.mark(phase)
    assert timer.splits() == [("a", 1.0), ("b", 3.0), ("c", 5.0)]


def test_the_loops_take_turns():
    taken, step = [], []

    def reference():
        return step[0] if step else None

    rounds = AlternatingRounds([0, 1, 2], Timer(torch.device("cpu")), 6, reference, lambda number, batch: None)
    for batch in rounds:  # an epoch of three batches, over and over
        taken.append(("mm", batch))
        if batch == 1:
            step = [lambda batch: taken.append(("hand", batch))]
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
    assert step_flops(known, batch) == linear
    known.train()
    products = 2 * (2 * rows * 3 * 3 * 5)  # of queries with keys, of weights with values
    assert step_flops(known, batch) == linear + 3 * products  # backward: two products for each


def test_the_matmul_rate_is_a_rate():
    assert matmul_rate(torch.device("cpu"), torch.float32, seconds=0.01) > 1e7


SETTINGS = Settings(1, 4, 1, 1, "32-true", compiled=False)


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
    told = bottleneck(figures, SETTINGS, device)
    assert said in told
    assert told.count(".") - told.count("datamodule.") - told.count("trainer.") - told.count("task.") == 1


def test_more_workers_than_cores_help_nobody(monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    figures = {f"{phase}_seconds": s for phase, s in phases(data=1.0).items()} | {"step_seconds": 1.0, "mfu": 0.1}
    assert "num_workers" not in bottleneck(figures, SETTINGS, "cpu")


def test_a_profile_is_a_report(tmp_path):
    figures = {f"{phase}_seconds": 0.2 for phase in NAMES} | {"step_seconds": 1.0, "samples_per_second": 64.0}
    figures |= {"ratio": 1.1, "by_hand_seconds": 0.9, "attainable_flops_per_second": 2e9, "step_flops": 1e9}
    metrics = {f"benchmark/{name}": x for name, x in (figures | {"mfu": 0.5, "peak_bytes": 2.0**30}).items()}
    profile = Profile(metrics, SETTINGS, "cpu", "a table")
    lines = profile.summary().splitlines()
    assert lines[0] == f"{'step':32}{1000:10.2f} ms   64 samples/s"
    assert f"{'step by hand':32}{900:10.2f} ms   ratio 1.100" in lines
    assert lines[-2] == f"{'peak memory':32}{1:10.2f} GiB  of the process"
    assert lines[-1].startswith("It waits for data 20% of the time")
    assert [row[0] for row in profile.table().rows][-1] == "peak memory"
    profile.save(tmp_path)
    assert (tmp_path / "report.txt").read_text() == profile.summary() + "\n"
    assert json.loads((tmp_path / "metrics.json").read_text()) == metrics
