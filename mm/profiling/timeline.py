"""Timeline of training steps by phase, in which Lightning's loop alternates with a reference loop without Lightning."""

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from lightning import Callback

from mm.types import Batch

PHASES = ("data", "forward", "backward", "optimizer", "other")


class Timer:
    """Timeline of phases, each of which lasts until the next one starts, so that their durations sum to the total.

    On CUDA, events are recorded in the stream without synchronisation. The duration of a phase is then the time for
    which the device executes it or idles in it, regardless of when the host has launched it.
    """

    def __init__(self, device: torch.device):
        self.device = device
        self.marks: list[tuple[str, Any]] = []

    def mark(self, phase: str) -> None:
        """Start a phase."""
        if self.device.type != "cuda":
            self.marks.append((phase, time.perf_counter()))
            return
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self.device))
        self.marks.append((phase, event))

    def splits(self) -> list[tuple[str, float]]:
        """Return the name and the seconds of each phase, in order. The last mark only ends the phase before it."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        pairs = zip(self.marks, self.marks[1:])
        if self.device.type == "cuda":
            return [(phase, begun.elapsed_time(ended) / 1000) for (phase, begun), (_, ended) in pairs]
        return [(phase, ended - begun) for (phase, begun), (_, ended) in pairs]


class PhaseStart(Callback):
    """Callback that marks the starts of all phases except the forward pass. It must be the first callback."""

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
    """Callback that marks the start of the forward pass. It must be the last callback."""

    def __init__(self, timer: Timer):
        self.timer = timer

    def on_train_batch_start(self, *args: Any, **kwargs: Any) -> None:
        self.timer.mark("forward")


class AlternatingRounds:
    """Loader that repeats the batches of another loader, and runs steps of a reference loop in between.

    Both loops read from the same iterator. The reference loop runs two steps at a time, so that each loop follows
    itself as often as it follows the other one.

    Args:
        loader: Loader of one epoch.
        timer: Timer that is marked when a batch is fetched and when it is yielded.
        length: Number of batches that Lightning gets.
        reference: Function that returns the step of the reference loop; None as long as the loop has not started.
        observe: Function that is called with the index of each batch and the batch, outside of the measured time.
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
    """Yield the batches of a loader, epoch after epoch, without end."""
    while True:
        yield from loader


def split_steps(splits: Iterable[tuple[str, float]]) -> tuple[list[dict[str, float]], list[float]]:
    """Group the phases of a timeline by training step.

    A step of Lightning starts with the phase "fetch", whose duration is recorded as "data". The phase "aside" is left
    out.

    Args:
        splits: Name and duration in seconds of each phase, in order.

    Returns:
        The seconds by phase of each step of Lightning, and the seconds of each step of the reference loop.
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
