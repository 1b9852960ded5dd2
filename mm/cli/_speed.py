"""What measuring needs: one timeline of phases, turns with a loop by hand, FLOPs, and what the device can do."""

import resource
import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from lightning import Callback, Trainer
from lightning.fabric.utilities import move_data_to_device
from lightning.fabric.utilities.throughput import get_available_flops
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from mm.callbacks.throughput import Amount, Counter
from mm.tasks.base import Task
from mm.tasks.measures import positive
from mm.types import Batch, pick

PHASES = ("data", "forward", "backward", "optimizer", "other")
HALF = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
KEPT = 4  # batches whose FLOPs are counted, spread over the run
COUNTED_ROWS = 8  # FLOPs are those of so many rows, scaled: the kernels that show all of them need more memory


class Clock:
    """A timeline: each phase lasts until the next begins, so that all of them sum to the whole.

    On CUDA the marks are events in the stream: nothing waits for them, and a phase takes what the device spends on it
    or idles in it, whenever the host has asked for that.
    """

    def __init__(self, device: torch.device):
        self.device = device
        self.marks: list[tuple[str, Any]] = []

    def mark(self, phase: str) -> None:
        if self.device.type != "cuda":
            self.marks.append((phase, time.perf_counter()))
            return
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self.device))
        self.marks.append((phase, event))

    def laps(self) -> list[tuple[str, float]]:
        """(phase, seconds) in order; the last mark ends the last phase."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        pairs = zip(self.marks, self.marks[1:])
        if self.device.type == "cuda":
            return [(phase, begun.elapsed_time(ended) / 1000) for (phase, begun), (_, ended) in pairs]
        return [(phase, ended - begun) for (phase, begun), (_, ended) in pairs]


class First(Callback):
    """Marks where Lightning has fetched, gone forward, back, and stepped; stands before all other callbacks."""

    def __init__(self, clock: Clock):
        self.clock = clock

    def on_train_batch_start(self, *args: Any, **kwargs: Any) -> None:
        self.clock.mark("other")

    def on_before_zero_grad(self, *args: Any, **kwargs: Any) -> None:
        self.clock.mark("optimizer")

    def on_before_backward(self, *args: Any, **kwargs: Any) -> None:
        self.clock.mark("backward")

    def on_after_backward(self, *args: Any, **kwargs: Any) -> None:
        self.clock.mark("optimizer")

    def on_train_batch_end(self, *args: Any, **kwargs: Any) -> None:
        self.clock.mark("other")

    def on_train_epoch_end(self, *args: Any, **kwargs: Any) -> None:
        self.clock.mark("end")


class Last(Callback):
    """Marks where forward begins; stands behind all other callbacks."""

    def __init__(self, clock: Clock):
        self.clock = clock

    def on_train_batch_start(self, *args: Any, **kwargs: Any) -> None:
        self.clock.mark("forward")


class ByHand:
    """The loop without Lightning: same model and loss, an optimizer of its own of the same kind, same precision.

    Errors: ValueError for a precision that it doesn't know.
    """

    def __init__(self, task: Task, trainer: Trainer):
        self.task = task
        self.finish = trainer.datamodule.finish  # type: ignore[attr-defined]
        self.device = trainer.strategy.root_device
        built = task.configure_optimizers()
        self.optimizer: torch.optim.Optimizer = built["optimizer"]
        self.schedule = built["lr_scheduler"]["scheduler"]
        precision = str(trainer.precision)
        if precision != "32-true" and precision not in HALF:
            raise ValueError(f"trainer.precision: got {precision}, wanted 32-true, {' or '.join(HALF)} to compare with")
        self.half = HALF.get(precision)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.half == torch.float16)
        self.clip = trainer.gradient_clip_val
        self.accumulate = trainer.accumulate_grad_batches
        self.parameters = [p for p in task.parameters() if p.requires_grad]
        self.batches = 0

    def loss(self, batch: Batch) -> Tensor:
        batch = self.finish(batch)
        with torch.autocast(self.device.type, self.half, enabled=self.half is not None):
            losses = self.task.losses(batch)
            return torch.stack([weight * total / positive(count) for total, count, weight in losses.values()]).sum()

    def step(self, batch: Batch) -> None:
        """One batch; the optimizer steps where as many have been accumulated."""
        if self.device.type != "cpu":
            batch = move_data_to_device(batch, self.device)
        if self.batches % self.accumulate == 0:
            self.optimizer.zero_grad()
        self.scaler.scale(self.loss(batch) / self.accumulate).backward()
        self.batches += 1
        if self.batches % self.accumulate == 0:
            self.scaler.unscale_(self.optimizer)
            if self.clip:
                torch.nn.utils.clip_grad_norm_(self.parameters, self.clip)
            self.scaler.step(self.optimizer)
            self.scaler.update()
            self.schedule.step()


class Bench(Callback):
    """Counts what Lightning trains on, and starts the loop by hand after `warmup` batches.

    What is measured are the batches from 2 * `warmup` on. Several processes have no loop by hand: what it does not
    share out, it would not compare.
    """

    def __init__(self, counter: Counter, clock: Clock, warmup: int, steps: int):
        self.counter = counter
        self.clock = clock
        self.warmup = warmup
        self.steps = steps
        self.hand: ByHand | None = None
        self.amounts: list[Amount] = []
        self.kept: list[Batch] = []
        self.peak = 0.0  # bytes, of Lightning's loop alone
        self.flops = 0.0  # of a mean batch

    @property
    def length(self) -> int:
        return 2 * self.warmup + self.steps

    def look(self, number: int, batch: Batch) -> None:
        """Outside what is measured."""
        self.amounts.append(self.counter.count(batch))
        if number % -(-self.length // KEPT) == 0:
            self.kept.append(batch)

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if batch_idx + 1 == self.warmup:
            self.peak = peak_memory(trainer.strategy.root_device)
            if trainer.world_size == 1:
                self.hand = ByHand(pl_module, trainer)

    def on_train_end(self, trainer: Trainer, pl_module: Any) -> None:
        hand = self.hand or ByHand(pl_module, trainer)
        self.flops = sum(step_flops(hand, batch) for batch in self.kept) / len(self.kept)


class Turns:
    """Batches of a loader over and over, for Lightning; the loop by hand takes turns, from the same iterator.

    Its turns are two at a time: each loop comes as often after itself as after the other.
    """

    def __init__(self, loader: Iterable[Batch], bench: Bench):
        self.loader = loader
        self.bench = bench

    def __len__(self) -> int:
        return self.bench.length

    def __iter__(self) -> Iterator[Batch]:
        batches, clock = endless(self.loader), self.bench.clock
        for number in range(len(self)):
            if self.bench.hand is not None and number % 2:
                for _ in range(2):
                    clock.mark("hand")
                    self.bench.hand.step(next(batches))
            clock.mark("fetch")
            batch = next(batches)
            clock.mark("aside")
            self.bench.look(number, batch)
            clock.mark("data")
            yield batch


def endless(loader: Iterable[Batch]) -> Iterator[Batch]:
    """Epoch after epoch."""
    while True:
        yield from loader


def step_flops(hand: ByHand, batch: Batch) -> float:
    """FLOPs of one batch forward and backward: of matrix products and convolutions, as torch counts them.

    Recurrent kernels and Fourier transforms are not counted by torch. Work done twice to save memory is.
    """
    whole = len(batch.row)
    few = pick(batch, slice(COUNTED_ROWS))
    if hand.device.type != "cpu":
        few = move_data_to_device(few, hand.device)
    counter = FlopCounterMode(display=False)
    # Not compiled, and attention in plain products: else the counter sees less
    with torch.compiler.set_stance("force_eager"), sdpa_kernel(SDPBackend.MATH), counter:
        hand.loss(few).backward()
    hand.optimizer.zero_grad()
    return counter.get_total_flops() * whole / len(few.row)


def attainable(device: torch.device, precision: str) -> tuple[float, str]:
    """FLOP/s that the device can do at most in a precision, and where that number is from."""
    dtype = HALF.get(precision, torch.float32)
    known = get_available_flops(device, dtype) if device.type == "cuda" else None
    if known is not None:
        return float(known), f"Lightning's table for {torch.cuda.get_device_name(device)}"
    return matmul_rate(device, dtype), "the best matrix product measured here"


@torch.no_grad()
def matmul_rate(device: torch.device, dtype: torch.dtype, seconds: float = 0.5) -> float:
    """FLOP/s of the fastest product of square matrices found within about that time per size."""
    best = 0.0
    for size in (512, 1024, 2048) if device.type == "cpu" else (4096, 8192):
        a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
        _ = a @ b
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            clock = Clock(device)
            clock.mark("product")
            _ = a @ b
            clock.mark("end")
            best = max(best, 2 * size**3 / clock.laps()[0][1])
    return best


def peak_memory(device: torch.device) -> float:
    """Bytes: the most that CUDA's allocator gave out, else the most that the process has had in memory."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def steps_of(laps: Iterable[tuple[str, float]]) -> tuple[list[dict[str, float]], list[float]]:
    """(seconds by phase of each of Lightning's steps, seconds of each step by hand)"""
    steps: list[dict[str, float]] = []
    hand = []
    for phase, seconds in laps:
        if phase == "hand":
            hand.append(seconds)
        elif phase == "fetch":
            steps.append(dict.fromkeys(PHASES, 0.0) | {"data": seconds})
        elif phase != "aside":
            steps[-1][phase] += seconds
    return steps, hand
