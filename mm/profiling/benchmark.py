"""Measure how fast training runs, what its steps wait for, and how a loop without Lightning compares."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median
from typing import Any, Protocol

from lightning import Callback, LightningDataModule, Trainer

from mm.callbacks.throughput import Amount, Counter, counter
from mm.data_source import DataSource
from mm.files import whole
from mm.profiling.flops import attainable_flops, peak_memory, step_flops
from mm.profiling.reference import ReferenceLoop
from mm.profiling.timeline import AlternatingRounds, PhaseEnd, PhaseStart, Timer, split_steps
from mm.reports import Report, Table
from mm.tasks.base import Task
from mm.types import Batch

ROUNDS = 5  # of equal length; what is reported is the median one
KEPT = 4  # batches whose FLOPs are counted, spread over the run
NAMES = {
    "data": "waiting for data",
    "forward": "forward",
    "backward": "backward",
    "optimizer": "optimizer",
    "other": "logging, callbacks, Lightning",
}


class BatchSettings(Protocol):
    """How rows are put together."""

    @property
    def batch_size(self) -> int:
        """Return the rows of a batch."""
        ...


class TrainingData(DataSource, Protocol):
    """Data that can be trained on, and its settings that advice mentions."""

    num_workers: int

    @property
    def batching(self) -> BatchSettings:
        """Return how rows are put together."""
        ...

    train_dataloader: Any


@dataclass(frozen=True)
class Settings:
    """Settings of a run, as the advice states them."""

    num_workers: int
    batch_size: int
    log_every_n_steps: int
    accumulate_grad_batches: int
    precision: str
    compiled: bool


@dataclass(frozen=True, repr=False)
class Profile(Report):
    """What `benchmark_task` returns.

    Attributes:
        metrics: `benchmark/step_seconds`, seconds of each phase, rates, `benchmark/ratio` to the loop without
            Lightning, `benchmark/mfu`, FLOPs and peak memory.
        settings: Of the run.
        device: Kind of the device, such as "cuda".
        source: Where the attainable FLOP/s are from.
    """

    metrics: Mapping[str, float]
    settings: Settings
    device: str
    source: str

    @property
    def figures(self) -> dict[str, float]:
        """Return the metrics without their prefix."""
        return {name.removeprefix("benchmark/"): value for name, value in self.metrics.items()}

    def table(self) -> Table:
        """Return a row for each figure: name, value, unit, note."""
        where = "allocated on the device" if self.device == "cuda" else "of the process"
        return Table(("", "value", "unit", "note"), figure_rows(self.figures, self.source, where))

    def summary(self) -> str:
        """Return the figures as lines, and what to change as the last one."""
        lines = [f"{name:32}{value:10.2f} {unit:4} {note}" for name, value, unit, note in self.table().rows]
        return "\n".join([*lines, bottleneck(self.figures, self.settings, self.device)])

    def save(self, folder: str | Path) -> Path:
        """Write metrics.json, and the summary as report.txt."""
        folder = super().save(folder)
        with whole(folder / "report.txt") as part:
            part.write_text(self.summary() + "\n", encoding="utf-8")
        return folder


class Benchmark(Callback):
    """Counts what Lightning trains on, and starts the reference loop after `warmup` batches.

    What is measured are the batches from 2 * `warmup` on. Several processes have no reference loop: what it does not
    share out, it would not compare.
    """

    def __init__(self, counter: Counter, warmup: int, steps: int):
        self.counter = counter
        self.warmup = warmup
        self.steps = steps
        self.reference: ReferenceLoop | None = None
        self.amounts: list[Amount] = []
        self.kept: list[Batch] = []
        self.peak = 0.0  # bytes, of Lightning's loop alone
        self.flops = 0.0  # of a mean batch

    @property
    def length(self) -> int:
        """Return how many batches Lightning trains on."""
        return 2 * self.warmup + self.steps

    def observe(self, number: int, batch: Batch) -> None:
        """Count a batch, outside what is measured."""
        self.amounts.append(self.counter.count(batch))
        if number % -(-self.length // KEPT) == 0:
            self.kept.append(batch)

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if batch_idx + 1 == self.warmup:
            self.peak = peak_memory(trainer.strategy.root_device)
            if trainer.world_size == 1:
                self.reference = ReferenceLoop(pl_module, trainer)

    def on_train_end(self, trainer: Trainer, pl_module: Any) -> None:
        loop = self.reference or ReferenceLoop(pl_module, trainer)
        self.flops = sum(step_flops(loop, batch) for batch in self.kept) / len(self.kept)


def benchmark_task(
    task: Task, data: TrainingData, trainer: Trainer, steps: int = 100, warmup: int = 10, compiled: bool = False
) -> Profile | None:
    """Train for some steps, and measure them by phase.

    The task's weights are trained by these steps; the trainer's callbacks and the data are put back.

    Args:
        task: What is trained.
        data: A LightningDataModule of `mm`.
        trainer: A trainer for one epoch without validation and checkpoints.
        steps: Measured batches, in five rounds; the figures are those of the median round.
        warmup: Batches before these, alone and again with the reference loop.
        compiled: Whether the model is compiled, for the advice.

    Returns:
        The figures; None in all processes but the first.

    Raises:
        ValueError: If `steps` or `warmup` can't be measured.
    """
    check_length(steps, warmup)
    device = trainer.strategy.root_device
    timer = Timer(device)
    bench = Benchmark(counter(data), warmup, steps)

    def reference_step() -> Any:
        return bench.reference.step if bench.reference is not None else None

    callbacks, read = trainer.callbacks, data.train_dataloader  # type: ignore[attr-defined]
    trainer.callbacks = [PhaseStart(timer), *callbacks, bench, PhaseEnd(timer)]  # type: ignore[attr-defined]
    data.train_dataloader = lambda: AlternatingRounds(read(), timer, bench.length, reference_step, bench.observe)
    try:
        assert isinstance(data, LightningDataModule)
        trainer.fit(task, datamodule=data)
    finally:
        trainer.callbacks, data.train_dataloader = callbacks, read  # type: ignore[attr-defined]
    if not trainer.is_global_zero:
        return None
    seconds, reference = split_steps(timer.splits())
    amounts = [tuple(map(float, amount)) for amount in bench.amounts[-steps:]]
    figures = summarize(seconds[-steps:], reference[-steps:] if reference else [], amounts, trainer.world_size)
    rate, source = attainable_flops(device, str(trainer.precision))
    figures |= {"peak_bytes": bench.peak, "step_flops": bench.flops, "attainable_flops_per_second": rate}
    figures["mfu"] = bench.flops / figures["step_seconds"] / rate
    every, accumulate = trainer.log_every_n_steps, trainer.accumulate_grad_batches  # type: ignore[attr-defined]
    settings = Settings(data.num_workers, data.batching.batch_size, every, accumulate, str(trainer.precision), compiled)
    return Profile({f"benchmark/{name}": x for name, x in figures.items()}, settings, device.type, source)


def check_length(steps: object, warmup: object) -> None:
    """Raise ValueError for lengths that can't be measured."""
    least = 2 * ROUNDS  # each loop twice in every round
    if not isinstance(steps, int) or steps < least or steps % least:
        raise ValueError(f"steps: got {steps}, wanted a multiple of {least}, which {ROUNDS} rounds share")
    if not isinstance(warmup, int) or warmup < 1:
        raise ValueError(f"warmup: got {warmup}, wanted at least 1 batch")


def summarize(
    steps: Sequence[Mapping[str, float]],
    reference: Sequence[float],
    amounts: Sequence[tuple[float, ...]],
    processes: int,
) -> dict[str, float]:
    """Return the seconds of a step and of each of its phases in the median round, rates, and the ratio of the loops.

    Args:
        steps: Seconds by phase of each step.
        reference: Seconds of each step of the reference loop; empty where there was none.
        amounts: Samples, tokens and seconds of sound of each step of one process.
        processes: How many train.
    """
    size = len(steps) // ROUNDS
    rounds = [steps[i : i + size] for i in range(0, len(steps), size)]
    seconds = [mean(sum(step.values()) for step in part) for part in rounds]
    middle = rounds[seconds.index(sorted(seconds)[ROUNDS // 2])]
    figures = {"step_seconds": median(seconds)}
    figures |= {f"{phase}_seconds": mean(step[phase] for step in middle) for phase in NAMES}
    for name, values in zip(("samples", "tokens", "audio_seconds"), zip(*amounts, strict=True), strict=True):
        if any(values):
            figures[f"{name}_per_second"] = mean(values) * processes / figures["step_seconds"]
    if reference:
        others = [mean(reference[i : i + size]) for i in range(0, len(reference), size)]
        figures["by_hand_seconds"] = median(others)
        figures["ratio"] = median(ours / other for ours, other in zip(seconds, others, strict=True))
    return figures


def bottleneck(figures: Mapping[str, float], settings: Settings, device: str) -> str:
    """Return one sentence: what the step spends its time on, and what to change."""
    part = {phase: figures[f"{phase}_seconds"] / figures["step_seconds"] for phase in NAMES}
    if part["data"] >= 0.15:
        workers, cores = settings.num_workers, os.cpu_count() or 1
        more = f"raise datamodule.num_workers (now {workers}, the machine has {cores} cores)"
        if workers >= cores:
            more = "make its files smaller or cheaper to decode, or give it more cores"
        return f"It waits for data {part['data']:.0%} of the time: {more}."
    if part["other"] >= 0.15:
        return (
            f"It spends {part['other']:.0%} of the time on logging, callbacks and Lightning: raise "
            f"datamodule.batch_size (now {settings.batch_size}) or trainer.log_every_n_steps "
            f"(now {settings.log_every_n_steps})."
        )
    if part["optimizer"] >= 0.3:
        return (
            f"It spends {part['optimizer']:.0%} of the time on the optimizer: raise datamodule.batch_size (now "
            f"{settings.batch_size}) or trainer.accumulate_grad_batches (now "
            f"{settings.accumulate_grad_batches}), or freeze parts with task.freeze."
        )
    busy = part["forward"] + part["backward"]
    said = f"It computes {busy:.0%} of the time, at {figures['mfu']:.0%} of what the device can do"
    if figures["mfu"] >= 0.4:
        return f"{said}: the model is what it waits for; more devices or a smaller model would help."
    if device == "cuda" and settings.precision == "32-true":
        return f"{said}: set trainer.precision=bf16-mixed, then raise datamodule.batch_size (mm scale_batch)."
    if not settings.compiled:
        return (
            f"{said}: its operations are small; try compile=true, or a larger datamodule.batch_size (mm scale_batch)."
        )
    return f"{said}: its operations are small; try a larger datamodule.batch_size (mm scale_batch)."


def figure_rows(figures: Mapping[str, float], source: str, where: str) -> list[tuple[str, float, str, str]]:
    """Return the figures as a person reads them: name, value, unit, note.

    Args:
        figures: As `summarize` returns them, with FLOPs and memory.
        source: Where the attainable rate is from.
        where: Where the memory is.
    """
    step = figures["step_seconds"]
    speeds = {"samples": "samples/s", "tokens": "tokens/s", "audio_seconds": "seconds of sound/s"}
    rates = [f"{figures[f'{n}_per_second']:,.0f} {unit}" for n, unit in speeds.items() if f"{n}_per_second" in figures]
    rows = [("step", step * 1000, "ms", ", ".join(rates))]
    for phase, name in NAMES.items():
        seconds = figures[f"{phase}_seconds"]
        rows.append((f"  {name}", seconds * 1000, "ms", f"{seconds / step:.0%}"))
    if "ratio" in figures:
        rows.append(("step by hand", figures["by_hand_seconds"] * 1000, "ms", f"ratio {figures['ratio']:.3f}"))
    rate = f"{figures['attainable_flops_per_second'] / 1e9:,.0f} GFLOP/s, {source}"
    rows.append(("FLOPs of a step", figures["step_flops"] / 1e9, "G", f"MFU {figures['mfu']:.3f} of {rate}"))
    return [*rows, ("peak memory", figures["peak_bytes"] / 2**30, "GiB", where)]
