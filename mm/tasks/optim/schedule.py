"""Learning-rate schedules, as factors on the learning rate of the optimizer, and the progress of a run."""

import math
from dataclasses import dataclass


class Schedule:
    """Factor on the learning rate: a linear warm-up, followed by cosine decay, linear decay or a constant.

    Args:
        shape: "cosine" (Loshchilov 2017), "linear" or "constant".
        warmup: Number of warm-up steps if 1 or more, otherwise their fraction of all steps.
        end: Factor at the end of a decay, in 0..1.

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
        """Return the factor for the optimizer step `step` of `total` steps."""
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
    """Map an optimizer step to the progress of a run, measured in steps of the length with which the run was started.

    If the run resumes with more processes or larger batches, an epoch has fewer steps, and each of them counts for
    more.

    Attributes:
        begun: Number of steps per epoch when the run was started.
        epoch: Number of steps per epoch with the current settings.
        run: Number of steps of the complete run with the current settings.
        total: Progress at the end of the run.
        step: Step at which the run was last resumed.
        place: Progress at that step.
        rate: Progress per step since that step.
    """

    begun: int
    epoch: int
    run: int
    total: float
    step: int = 0
    place: float = 0.0
    rate: float = 1.0

    def __call__(self, step: int) -> float:
        return self.place + (step - self.step) * self.rate

    def resume(self, step: int, epoch: int, run: int, left: int, by_epochs: bool) -> "TrainingProgress":
        """Return the progress of the run after it resumes at a step, with epochs and a run of other lengths.

        Args:
            step: Optimizer step at which the run resumes.
            epoch: New number of steps per epoch.
            run: New number of steps of the complete run.
            left: Number of steps that are left.
            by_epochs: Whether the run ends after a number of epochs, rather than of steps.

        Returns:
            The new progress, which equals the old one at `step`.
        """
        rate = self.begun / epoch if by_epochs else 1.0
        return TrainingProgress(self.begun, epoch, run, self(step) + left * rate, step, self(step), rate)
