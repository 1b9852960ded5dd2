"""A timeline of training steps by phase, in alternation with the same loop without Lightning."""

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from lightning import Callback

from mm.types import Batch

PHASES = ("data", "forward", "backward", "optimizer", "other")


class Timer:
    """A timeline: each phase lasts until the next begins, so that all of them sum to the whole.

    On CUDA the marks are events in the stream: nothing waits for them, and a phase takes what the device spends on it
    or idles in it, whenever the host has asked for that.
    """

    def __init__(self, device: torch.device):
        self.device = device
        self.marks: list[tuple[str, Any]] = []

    def mark(self, phase: str) -> None:
        """Begin a phase."""
        if self.device.type != "cuda":
            self.marks.append((phase, time.perf_counter()))
            return
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self.device))
        self.marks.append((phase, event))

    def splits(self) -> list[tuple[str, float]]:
        """Return (phase, seconds) in order; the last mark ends the last phase."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        pairs = zip(self.marks, self.marks[1:])
        if self.device.type == "cuda":
            return [(phase, begun.elapsed_time(ended) / 1000) for (phase, begun), (_, ended) in pairs]
        return [(phase, ended - begun) for (phase, begun), (_, ended) in pairs]


class PhaseStart(Callback):
    """Marks where Lightning has fetched, gone forward, back, and stepped; stands before all other callbacks."""

    def __init__(self, timer: Timer):
        self.timer = timer

    def on_train_batch_start(self, *args: Any, **kwargs: Any) -> None:
        self.timer.mark("other")

    def on_before_zero_grad(self, *args: Any, **kwargs: Any) -> None:
        self.timer.mark("optimizer")

    def on_before_backward(self, *args: Any, **kwargs: Any) -> None:
        self.timer.mark("backward")

    def on_after_backward(self, *args: Any, **kwargs: Any) -> None:
        self.timer.mark("optimizer")

    def on_train_batch_end(self, *args: Any, **kwargs: Any) -> None:
        self.timer.mark("other")

    def on_train_epoch_end(self, *args: Any, **kwargs: Any) -> None:
        self.timer.mark("end")


class PhaseEnd(Callback):
    """Marks where forward begins; stands behind all other callbacks."""

    def __init__(self, timer: Timer):
        self.timer = timer

    def on_train_batch_start(self, *args: Any, **kwargs: Any) -> None:
        self.timer.mark("forward")


class AlternatingRounds:
    """Batches of a loader over and over, for Lightning; a reference loop takes turns, from the same iterator.

    Its turns are two at a time: each loop comes as often after itself as after the other.

    Args:
        loader: One epoch of batches.
        timer: Marked where a batch is fetched, and where it is handed over.
        length: How many batches Lightning gets.
        reference: Returns the step of the reference loop; None until it takes part.
        observe: Called with each batch and its number, outside what is measured.
    """

    def __init__(
        self,
        loader: Iterable[Batch],
        timer: Timer,
        length: int,
        reference: Callable[[], Callable[[Batch], None] | None],
        observe: Callable[[int, Batch], None],
    ):
        self.loader = loader
        self.timer = timer
        self.length = length
        self.reference = reference
        self.observe = observe

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[Batch]:
        batches, timer = repeat_epochs(self.loader), self.timer
        for number in range(len(self)):
            step = self.reference()
            if step is not None and number % 2:
                for _ in range(2):
                    timer.mark("reference")
                    step(next(batches))
            timer.mark("fetch")
            batch = next(batches)
            timer.mark("aside")
            self.observe(number, batch)
            timer.mark("data")
            yield batch


def repeat_epochs(loader: Iterable[Batch]) -> Iterator[Batch]:
    """Yield the batches of a loader, epoch after epoch."""
    while True:
        yield from loader


def split_steps(splits: Iterable[tuple[str, float]]) -> tuple[list[dict[str, float]], list[float]]:
    """Group a timeline by step.

    Args:
        splits: (phase, seconds) in order.

    Returns:
        Seconds by phase of each of Lightning's steps, and seconds of each step of the reference loop.
    """
    steps: list[dict[str, float]] = []
    reference = []
    for phase, seconds in splits:
        if phase == "reference":
            reference.append(seconds)
        elif phase == "fetch":
            steps.append(dict.fromkeys(PHASES, 0.0) | {"data": seconds})
        elif phase != "aside":
            steps[-1][phase] += seconds
    return steps, reference
