"""Learning-rate schedules, as factors on the optimizer's own rate."""

import math


class Schedule:
    """Warm-up, then cosine or linear decay to `end`, or constant.

    shape: cosine (Loshchilov 2017), linear or constant; warmup: steps where 1 or more, else a part of all steps;
    end: last factor. Errors: ValueError where an argument is out of range.
    """

    def __init__(self, shape: str, warmup: float = 0.0, end: float = 0.0):
        if shape not in ("cosine", "linear", "constant"):
            raise ValueError(f"task.scheduler.shape: got '{shape}', wanted cosine, linear or constant")
        if warmup < 0 or not 0 <= end <= 1:
            raise ValueError(f"task.scheduler: got warmup={warmup}, end={end}, wanted warmup of 0 or more, end in 0..1")
        self.shape = shape
        self.warmup = warmup
        self.end = end

    def __call__(self, step: int, total: int) -> float:
        """Factor for optimizer step `step` of `total`."""
        warmup = self.warmup if self.warmup >= 1 else self.warmup * total
        if step < warmup:
            return (step + 1) / (warmup + 1)
        if self.shape == "constant":
            return 1.0
        part = min(1.0, (step - warmup) / max(1.0, total - warmup))
        factor = (1 + math.cos(math.pi * part)) / 2 if self.shape == "cosine" else 1 - part
        return self.end + (1 - self.end) * factor
