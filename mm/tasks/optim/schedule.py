"""Learning-rate schedules, as factors on the optimizer's own rate, and how far a run is on its way."""

import math
from dataclasses import dataclass


class Schedule:
    """Factor on the learning rate: warm-up, then cosine or linear decay to `end`, or constant.

    Args:
        shape: "cosine" (Loshchilov 2017), "linear" or "constant".
        warmup: Number of steps where 1 or more, else a part of all steps.
        end: Last factor.

    Raises:
        ValueError: If an argument is out of range.
    """

    def __init__(self, shape: str, warmup: float = 0.0, end: float = 0.0):
        if shape not in ("cosine", "linear", "constant"):
            raise ValueError(f"task.scheduler.shape: got '{shape}', wanted cosine, linear or constant")
        if warmup < 0 or (warmup > 1 and warmup != int(warmup)):
            raise ValueError(f"task.scheduler.warmup: got {warmup}, wanted whole steps, or a part of all, below 1")
        if not 0 <= end <= 1:
            raise ValueError(f"task.scheduler.end: got {end}, wanted a factor from 0 to 1")
        self.shape = shape
        self.warmup = warmup
        self.end = end

    def __call__(self, step: float, total: float) -> float:
        """Factor for optimizer step `step` of `total`."""
        warmup = self.warmup if self.warmup >= 1 else self.warmup * total
        if step < warmup:
            return (step + 1) / (warmup + 1)
        if self.shape == "constant":
            return 1.0
        part = min(1.0, (step - warmup) / max(1.0, total - warmup))
        factor = (1 + math.cos(math.pi * part)) / 2 if self.shape == "cosine" else 1 - part
        return self.end + (1 - self.end) * factor


@dataclass(frozen=True)
class TrainingProgress:
    """Optimizer step -> how far the run is on its way to `total`, both in steps like those that it was begun with.

    Of more processes, or larger batches, an epoch has fewer steps: each of them counts for more.
    """

    begun: int  # steps of an epoch when the run was begun
    epoch: int  # steps of an epoch,
    run: int  # and of the whole run, as it is set now
    total: float
    step: int = 0  # since which it goes on so,
    place: float = 0.0  # how far it was then,
    rate: float = 1.0  # what every step counts for since

    def __call__(self, step: int) -> float:
        return self.place + (step - self.step) * self.rate

    def going_on(self, step: int, epoch: int, run: int, left: int, by_epochs: bool) -> "TrainingProgress":
        """From `step` on with epochs and a run of other lengths. left: steps; by_epochs: they are what ends the run."""
        rate = self.begun / epoch if by_epochs else 1.0
        return TrainingProgress(self.begun, epoch, run, self(step) + left * rate, step, self(step), rate)
