"""Regression metrics with float64 states.

They keep the digits of Unix times, and of small differences between numbers as large as 1e12.
"""

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
    """Return the widest floating-point type of a device: float64, or float32 on Apple GPUs, which lack float64."""
    return torch.float32 if device.type == "mps" else torch.float64


class Float64States(Metric):
    """Base class of metrics that keep their states in float64, whatever precision the task is converted to.

    Without it, `Module.to(torch.bfloat16)`, which `trainer.precision=bf16-true` calls, would convert the states as
    well.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.set_dtype(torch.float64)

    def _apply(self, fn: Callable[..., Any], exclude_state: Sequence[str] = "") -> torch.nn.Module:
        super()._apply(fn, exclude_state)
        wide = widest(self.device)
        for name, default in self._defaults.items():
            state = getattr(self, name)
            self._defaults[name] = widened(default, wide)
            setattr(self, name, widened(state, wide))
        self._dtype = wide
        return self


def widened(state: Any, dtype: torch.dtype) -> Any:
    """Return a state, which is a tensor or a list of tensors, with its floating-point tensors converted to `dtype`."""
    if isinstance(state, Tensor):
        return state.to(dtype) if state.is_floating_point() else state
    return [widened(one, dtype) for one in state]


class MeanAbsoluteError(Float64States, torchmetrics.MeanAbsoluteError, Configurable):
    """MeanAbsoluteError of torchmetrics with float64 states."""


class MeanSquaredError(Float64States, torchmetrics.MeanSquaredError, Configurable):
    """MeanSquaredError of torchmetrics with float64 states."""


class R2Score(Float64States, Configurable):
    """Coefficient of determination, computed from the squared deviations of the targets from their mean.

    R2Score of torchmetrics subtracts the squared sum of the targets from the sum of their squares. This loses all
    digits of the variance if the mean is a million times the standard deviation, as of Unix times (1.7e9, with a
    standard deviation of minutes). Here the deviations are merged batch by batch and over all processes (Chan et al.
    1979). If the target does not vary, the score is 1 for a perfect prediction and 0 for any other, as in scikit-learn.

    Raises:
        ValueError: If there are fewer than two rows, for which the score is not defined.
    """

    full_state_update = False
    higher_is_better = True
    is_differentiable = True
    moments: Tensor  # (4,): count, mean of the targets, sum of their squared deviations, sum of squared residuals

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("moments", torch.zeros(4, dtype=torch.float64), dist_reduce_fx=None)

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Add the predictions (N,) and targets (N,) of a batch."""
        wide = self.moments.dtype
        preds, target = preds.detach().to(wide), target.detach().to(wide)
        first = target[0]  # differences of large numbers are exact, and their mean has a smaller rounding error
        offset = (target - first).mean()
        deviations = (target - first - offset).square().sum()
        residuals = (target - preds).square().sum()
        batch = torch.stack([first.new_tensor(len(target)), first + offset, deviations, residuals])
        self.moments = merged_moments(self.moments, batch)

    def compute(self) -> Tensor:
        found, *others = self.moments.view(-1, 4)  # the moments of each process
        for other in others:
            found = merged_moments(found, other)
        count, _, deviations, residuals = found
        if count < 2:
            raise ValueError("Needs at least two samples to calculate r2 score.")
        if deviations > 0:
            return 1 - residuals / deviations
        return (residuals == 0).to(residuals.dtype)


class SpearmanCorrCoef(Float64States, torchmetrics.SpearmanCorrCoef, Configurable):
    """SpearmanCorrCoef of torchmetrics with float64 states, and with ranks that do not overflow.

    torchmetrics stores the values in float32, in which 60 Unix times within one minute are all equal. It adds the ranks
    of tied values in int32, which overflows if 65,536 or more values are tied. If the predictions or the targets do not
    vary, the coefficient is 0, as in torchmetrics.
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
    """Return the ranks of values (N,), starting at 1; equal values share the mean of their ranks."""
    _, index, counts = values.unique(sorted=True, return_inverse=True, return_counts=True)
    last = counts.cumsum(0)
    return (last.to(values.dtype) - (counts.to(values.dtype) - 1) / 2)[index]


def merged_moments(one: Tensor, other: Tensor) -> Tensor:
    """Return the moments (4,) of the union of two sets of rows, as defined in `R2Score`; a set may be empty."""
    if not other[0]:
        return one
    count = one[0] + other[0]
    gap = other[1] - one[1]
    mean = one[1] + gap * other[0] / count
    deviations = one[2] + other[2] + gap.square() * one[0] * other[0] / count
    return torch.stack([count, mean, deviations, one[3] + other[3]])
