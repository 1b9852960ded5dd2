"""Measure how fast a training configuration runs, what its steps wait for, and how a loop by hand compares."""

import os
from pathlib import Path
from statistics import mean, median
from typing import TYPE_CHECKING, Any

from mm.cli._app import launch, save_overrides, shown
from mm.messages import is_first_process

if TYPE_CHECKING:
    from omegaconf import DictConfig

ROUNDS = 5  # of equal length; what is told is the median one
NAMES = {
    "data": "waiting for data",
    "forward": "forward",
    "backward": "backward",
    "optimizer": "optimizer",
    "other": "logging, callbacks, Lightning",
}


def main(argv: list[str]) -> None:
    launch("benchmark", argv, job)


def job(cfg: "DictConfig", folder: Path) -> None:
    """A training run of warmup + warmup + steps batches, without validation, test and checkpoints."""
    from lightning.pytorch.callbacks import Checkpoint, EarlyStopping
    from omegaconf import OmegaConf

    from mm.callbacks.kept import Kept
    from mm.callbacks.throughput import counter
    from mm.cli import _loggers, _run, _speed, _trainer
    from mm.runs.results import write_metrics

    check(cfg)
    run = _run.prepare(cfg)
    built = _trainer.build_callbacks(cfg, run.task.model)
    left_out = (Checkpoint, EarlyStopping, Kept)  # which wait for a validation, or save
    callbacks = [callback for callback in built if not isinstance(callback, left_out)]
    trainer: Any = _trainer.build(cfg, callbacks, _loggers.build(cfg, folder))
    device = trainer.strategy.root_device
    clock = _speed.Clock(device)
    bench = _speed.Bench(counter(run.datamodule), clock, cfg.warmup, cfg.steps)
    trainer.callbacks = [_speed.First(clock), *trainer.callbacks, bench, _speed.Last(clock)]
    if is_first_process():
        OmegaConf.save(cfg, folder / "config.yaml", resolve=True)
        save_overrides(folder)
    _loggers.start(cfg, trainer, folder)
    read = run.datamodule.train_dataloader
    run.datamodule.train_dataloader = lambda: _speed.Turns(read(), bench)
    trainer.fit(run.task, datamodule=run.datamodule)
    if not trainer.is_global_zero:
        return
    steps, hand = _speed.steps_of(clock.laps())
    amounts = [tuple(map(float, amount)) for amount in bench.amounts[-cfg.steps :]]
    figures = measure(steps[-cfg.steps :], hand[-cfg.steps :] if hand else [], amounts, trainer.world_size)
    rate, source = _speed.attainable(device, str(trainer.precision))
    figures |= {"peak_bytes": bench.peak, "step_flops": bench.flops, "attainable_flops_per_second": rate}
    figures["mfu"] = bench.flops / figures["step_seconds"] / rate
    where = "allocated on the device" if device.type == "cuda" else "of the process"
    said = "\n".join([*table(figures, source, where), bottleneck(figures, cfg, device.type)])
    print(said)
    (folder / "report.txt").write_text(said + "\n", encoding="utf-8")
    write_metrics(folder, {f"benchmark/{name}": value for name, value in figures.items()}, {})
    print(shown(folder))


def check(cfg: "DictConfig") -> None:
    """Make the run as long as the measurement. Errors: ValueError for lengths that can't be measured."""
    least = 2 * ROUNDS  # each loop twice in every round
    if not isinstance(cfg.steps, int) or cfg.steps < least or cfg.steps % least:
        raise ValueError(f"steps: got {cfg.steps}, wanted a multiple of {least}, which {ROUNDS} rounds share")
    if not isinstance(cfg.warmup, int) or cfg.warmup < 1:
        raise ValueError(f"warmup: got {cfg.warmup}, wanted at least 1 batch")
    if cfg.resume:
        raise ValueError("resume: a benchmark begins anew; leave it out")
    length = {"max_epochs": 1, "max_steps": -1, "max_time": None, "limit_train_batches": 1.0, "limit_val_batches": 0}
    for key, value in length.items():
        cfg.trainer[key] = value


def measure(
    steps: list[dict[str, float]], hand: list[float], amounts: list[tuple[float, ...]], processes: int
) -> dict[str, float]:
    """Seconds a step and of each of its phases, in the median round; what was trained on per second; the ratio.

    steps: seconds by phase; hand: seconds of each step by hand, none where there was no such loop; amounts: samples,
    tokens and seconds of sound of each step of one process.
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
    if hand:
        others = [mean(hand[i : i + size]) for i in range(0, len(hand), size)]
        figures["by_hand_seconds"] = median(others)
        figures["ratio"] = median(ours / other for ours, other in zip(seconds, others, strict=True))
    return figures


def bottleneck(figures: dict[str, float], cfg: "DictConfig", device: str) -> str:
    """One sentence: what the step spends its time on, and what to change."""
    part = {phase: figures[f"{phase}_seconds"] / figures["step_seconds"] for phase in NAMES}
    if part["data"] >= 0.15:
        workers, cores = cfg.datamodule.num_workers, os.cpu_count() or 1
        more = f"raise datamodule.num_workers (now {workers}, the machine has {cores} cores)"
        if workers >= cores:
            more = "make its files smaller or cheaper to decode, or give it more cores"
        return f"It waits for data {part['data']:.0%} of the time: {more}."
    if part["other"] >= 0.15:
        return (
            f"It spends {part['other']:.0%} of the time on logging, callbacks and Lightning: raise "
            f"datamodule.batch_size (now {cfg.datamodule.batch_size}) or trainer.log_every_n_steps "
            f"(now {cfg.trainer.log_every_n_steps})."
        )
    if part["optimizer"] >= 0.3:
        return (
            f"It spends {part['optimizer']:.0%} of the time on the optimizer: raise datamodule.batch_size (now "
            f"{cfg.datamodule.batch_size}) or trainer.accumulate_grad_batches (now "
            f"{cfg.trainer.accumulate_grad_batches}), or freeze parts with task.freeze."
        )
    busy = part["forward"] + part["backward"]
    said = f"It computes {busy:.0%} of the time, at {figures['mfu']:.0%} of what the device can do"
    if figures["mfu"] >= 0.4:
        return f"{said}: the model is what it waits for; more devices or a smaller model would help."
    if device == "cuda" and str(cfg.trainer.precision) == "32-true":
        return f"{said}: set trainer.precision=bf16-mixed, then raise datamodule.batch_size (mm find_batch)."
    if not cfg.compile:
        return f"{said}: its operations are small; try compile=true, or a larger datamodule.batch_size (mm find_batch)."
    return f"{said}: its operations are small; try a larger datamodule.batch_size (mm find_batch)."


def table(figures: dict[str, float], source: str, where: str) -> list[str]:
    """The figures, as a person reads them. source: of the attainable rate; where: the memory is."""
    step = figures["step_seconds"]
    speeds = {"samples": "samples/s", "tokens": "tokens/s", "audio_seconds": "seconds of sound/s"}
    told = [f"{figures[f'{n}_per_second']:,.0f} {unit}" for n, unit in speeds.items() if f"{n}_per_second" in figures]
    lines = [line("step", step * 1000, "ms", ", ".join(told))]
    for phase, name in NAMES.items():
        seconds = figures[f"{phase}_seconds"]
        lines.append(line(f"  {name}", seconds * 1000, "ms", f"{seconds / step:.0%}"))
    if "ratio" in figures:
        lines.append(line("step by hand", figures["by_hand_seconds"] * 1000, "ms", f"ratio {figures['ratio']:.3f}"))
    rate = f"{figures['attainable_flops_per_second'] / 1e9:,.0f} GFLOP/s, {source}"
    lines.append(line("FLOPs of a step", figures["step_flops"] / 1e9, "G", f"MFU {figures['mfu']:.3f} of {rate}"))
    return [*lines, line("peak memory", figures["peak_bytes"] / 2**30, "GiB", where)]


def line(name: str, value: float, unit: str, more: str) -> str:
    """One line of the table."""
    return f"{name:32}{value:10.2f} {unit:4} {more}"
