"""Augmentation: third parties' transforms on one sample, in training only."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor


class AugmentError(ValueError):
    """The augmentation is at fault, not the sample: leaving the sample out would hide it."""


def augmented(augment: Sequence[Any], x: Tensor) -> Tensor:
    """Each in turn. Errors: AugmentError naming the one that fails or gives no tensor."""
    for one in augment:
        try:
            out = one(x)
        except Exception as error:  # other people's code may raise anything
            raise AugmentError(f"{failed(one, x)} raised {type(error).__name__}: {error}") from error
        x = out[0] if isinstance(out, tuple) else out  # torchaudio's SpeedPerturbation gives lengths as well
        if not isinstance(x, Tensor):
            raise AugmentError(f"{failed(one)} gave {type(x).__name__}, wanted a tensor")
    return x


def failed(one: Any, x: Tensor | None = None) -> str:
    """How a message names an augmentation."""
    on = "" if x is None else f" on {x.dtype} of shape {tuple(x.shape)}"
    return f"the augmentation {getattr(one, '__name__', type(one).__name__)}{on}"
