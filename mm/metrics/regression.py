"""Metrics of regression whose states are float64: neither Unix times nor 1e12 plus a small number lose their digits."""

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torchmetrics
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities.data import dim_zero_cat

from mm.configurable import Configurable


def widest(device: torch.device) -> torch.dtype:
    """Return the widest floating-point type of a device: float64, but float32 on Apple's GPUs, which have no other."""
    return torch.float32 if device.type == "mps" else torch.float64


class Float64States(Metric):
    """Base class that keeps the states in float64, whatever precision the task is converted to.

    `Module.to(torch.bfloat16)`, as `trainer.precision=bf16-true` calls it, would otherwise convert the states, too.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.set_dtype(torch.float64)

    def _apply(self, fn: Callable[..., Any], exclude_state: Sequence[str] = "") -> torch.nn.Module:
        super()._apply(fn, exclude_state)  # type: ignore[arg-type]
        wide = widest(self.device)
        for name, default in self._defaults.items():
            state = getattr(self, name)
            self._defaults[name] = widened(default, wide)
            setattr(self, name, widened(state, wide))
        self._dtype = wide
        return self


def widened(state: Any, dtype: torch.dtype) -> Any:
    """Return a state, a tensor or a list of tensors, with its floating-point numbers in `dtype`."""
    if isinstance(state, Tensor):
        return state.to(dtype) if state.is_floating_point() else state
    return [widened(one, dtype) for one in state]


class MeanAbsoluteError(Float64States, torchmetrics.MeanAbsoluteError, Configurable):
    """torchmetrics' MeanAbsoluteError with float64 states."""


class MeanSquaredError(Float64States, torchmetrics.MeanSquaredError, Configurable):
    """torchmetrics' MeanSquaredError with float64 states."""


class R2Score(Float64States, Configurable):
    """Coefficient of determination, computed from the squared deviations of the targets from their mean.

    torchmetrics' R2Score subtracts the squared sum of the targets from the sum of their squares, which leaves no digit
    of the variance where the mean is a million times the deviation, as of Unix times (1.7e9, deviation in minutes).
    Here the deviations are merged batch by batch, and over processes (Chan 1979). Where the target does not vary, the
    score is 1 for a perfect prediction and 0 for any other, as in scikit-learn.

    Raises:
        ValueError: If there are fewer than two rows, for which the score is not defined.
    """

    full_state_update = False
    higher_is_better = True
    is_differentiable = True
    moments: Tensor  # (4,): count, mean of the targets, their squared deviations from it, squared residuals

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("moments", torch.zeros(4, dtype=torch.float64), dist_reduce_fx=None)

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Add the predictions (N,) of some rows and their targets (N,)."""
        wide = self.moments.dtype
        preds, target = preds.detach().to(wide), target.detach().to(wide)
        first = target[0]  # differences of large numbers are exact, and their mean rounds less than that of the numbers
        offset = (target - first).mean()
        deviations = (target - first - offset).square().sum()
        residuals = (target - preds).square().sum()
        batch = torch.stack([first.new_tensor(len(target)), first + offset, deviations, residuals])
        self.moments = merged_moments(self.moments, batch)

    def compute(self) -> Tensor:
        found, *others = self.moments.view(-1, 4)  # one for each process
        for other in others:
            found = merged_moments(found, other)
        count, _, deviations, residuals = found
        if count < 2:
            raise ValueError("Needs at least two samples to calculate r2 score.")
        if deviations > 0:
            return 1 - residuals / deviations
        return (residuals == 0).to(residuals.dtype)


class SpearmanCorrCoef(Float64States, torchmetrics.SpearmanCorrCoef, Configurable):
    """torchmetrics' SpearmanCorrCoef with float64 states, and with ranks that do not overflow.

    torchmetrics keeps the values in float32, where 60 Unix times of one minute are all equal, and adds the ranks of
    tied values in int32, which overflows where 65,536 or more are tied. Where predictions or targets do not vary, the
    coefficient is 0, as in torchmetrics.
    """

    def __init__(self, **kwargs: Any) -> None:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Metric `SpearmanCorrcoef` will save", UserWarning)
            super().__init__(**kwargs)

    def compute(self) -> Tensor:
        ranks = [average_ranks(dim_zero_cat(state)) for state in (self.preds, self.target)]
        one, other = (rank - rank.mean() for rank in ranks)
        scale = (one.square().mean() * other.square().mean()).sqrt()
        return torch.where(scale > 0, (one * other).mean() / scale, 0).clamp(-1, 1)


def average_ranks(values: Tensor) -> Tensor:
    """Return the ranks of some values (N,), from 1, where equal values share the mean of theirs."""
    _, index, counts = values.unique(sorted=True, return_inverse=True, return_counts=True)
    last = counts.cumsum(0)
    return (last.to(values.dtype) - (counts.to(values.dtype) - 1) / 2)[index]


def merged_moments(one: Tensor, other: Tensor) -> Tensor:
    """Return the moments (4,) of two sets of rows together, each as in R2Score; a set may be empty."""
    if not other[0]:
        return one
    count = one[0] + other[0]
    gap = other[1] - one[1]
    mean = one[1] + gap * other[0] / count
    deviations = one[2] + other[2] + gap.square() * one[0] * other[0] / count
    return torch.stack([count, mean, deviations, one[3] + other[3]])
