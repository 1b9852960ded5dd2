"""Measurement of the training speed by phase of a step, in comparison with a plain PyTorch loop without Lightning."""

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

ROUNDS = 5  # number of rounds of equal length; the median round is reported
KEPT = 4  # number of batches whose FLOPs are counted, evenly spaced over the run
NAMES = {
    "data": "waiting for data",
    "forward": "forward",
    "backward": "backward",
    "optimizer": "optimizer",
    "other": "logging, callbacks, Lightning",
}


class BatchSettings(Protocol):
    """Settings of the batches of a data module."""

    @property
    def batch_size(self) -> int:
        """Return the number of rows per batch."""
        ...


class TrainingData(DataSource, Protocol):
    """Data for training, with the settings that the recommendation of a profile mentions."""

    num_workers: int

    @property
    def batching(self) -> BatchSettings:
        """Return the settings of the batches."""
        ...

    train_dataloader: Any


@dataclass(frozen=True)
class Settings:
    """Settings of a run that the recommendation of a profile mentions."""

    num_workers: int
    batch_size: int
    log_every_n_steps: int
    accumulate_grad_batches: int
    precision: str
    compiled: bool


@dataclass(frozen=True, repr=False)
class Profile(Report):
    """Measurements of the training speed, as returned by `benchmark_task`.

    Attributes:
        metrics: `benchmark/step_seconds`, the seconds of each phase, rates, `benchmark/ratio` (duration of a step
            relative to a loop without Lightning), `benchmark/mfu` (model FLOPs utilisation), FLOPs and peak memory.
        settings: Settings of the run.
        device: Type of the device, such as "cuda".
        source: Origin of the attainable FLOP/s.
    """

    metrics: Mapping[str, float]
    settings: Settings
    device: str
    source: str

    @property
    def figures(self) -> dict[str, float]:
        """Return the metrics without the prefix `benchmark/`."""
        return {name.removeprefix("benchmark/"): value for name, value in self.metrics.items()}

    def table(self) -> Table:
        """Return a table with the name, value, unit and a note of each measurement."""
        where = "allocated on the device" if self.device == "cuda" else "of the process"
        return Table(("", "value", "unit", "note"), figure_rows(self.figures, self.source, where))

    def summary(self) -> str:
        """Return the measurements as lines of text, and the recommended change as the last line."""
        lines = [f"{name:32}{value:10.2f} {unit:4} {note}" for name, value, unit, note in self.table().rows]
        return "\n".join([*lines, bottleneck(self.figures, self.settings, self.device)])

    def save(self, folder: str | Path) -> Path:
        """Write metrics.json into a folder, and the summary as report.txt."""
        folder = super().save(folder)
        with whole(folder / "report.txt") as part:
            part.write_text(self.summary() + "\n", encoding="utf-8")
        return folder


class Benchmark(Callback):
    """Callback that counts the amount of data in the batches, and starts the reference loop after `warmup` batches.

    The batches after the first 2 * `warmup` are measured. With several processes there is no reference loop, because it
    does not distribute the training and could not be compared.

    Args:
        counter: Counter of samples, tokens and seconds of sound.
        warmup: Number of batches before the reference loop starts, and again before the measurement.
        steps: Number of measured batches.
    """

    def __init__(self, counter: Counter, warmup: int, steps: int):
        self.counter = counter
        self.warmup = warmup
        self.steps = steps
        self.reference: ReferenceLoop | None = None
        self.amounts: list[Amount] = []
        self.kept: list[Batch] = []
        self.peak = 0.0  # peak memory in bytes before the reference loop starts
        self.flops = 0.0  # mean over the kept batches

    @property
    def length(self) -> int:
        """Return the total number of batches that Lightning trains on."""
        return 2 * self.warmup + self.steps

    def observe(self, number: int, batch: Batch) -> None:
        """Count the data of a batch, outside of the measured time, and keep a few batches for counting their FLOPs."""
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
    """Train a task for some steps, and measure the duration of each phase of a step.

    The training changes the weights of the task; the callbacks of the Trainer and the data loader are restored.

    Args:
        task: The task to train.
        data: A LightningDataModule of `mm`.
        trainer: A Trainer for one epoch without validation and checkpoints.
        steps: Number of measured batches, in five rounds. The seconds of the phases are those of the median round.
        warmup: Number of batches before the reference loop starts, and again before the measurement.
        compiled: Whether the model is compiled, for the recommendation.

    Returns:
        The measurements in rank 0; None in other processes.

    Raises:
        ValueError: If `steps` or `warmup` is invalid.
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
    """Raise a ValueError if the number of measured or of warm-up steps is invalid."""
    least = 2 * ROUNDS  # in every round each loop runs at least twice
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
    """Return the median seconds per step, the seconds of each phase, the rates, and the ratio to the reference loop.

    The phases are those of the median round.

    Args:
        steps: Seconds by phase of each step.
        reference: Seconds of each step of the reference loop; empty if there is none.
        amounts: Samples, tokens and seconds of sound of each step in one process.
        processes: Number of processes that train.
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
    """Describe in one sentence which phase dominates the training step, and which setting to change."""
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
    """Return the rows of a table of measurements: name, value, unit and note.

    Args:
        figures: Measurements, as returned by `summarize`, with FLOPs and memory.
        source: Origin of the attainable FLOP/s.
        where: Description of the measured memory.
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
