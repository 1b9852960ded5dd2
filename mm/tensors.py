"""Functions on the tensors of batches, targets and features."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mm._compat.torch import tree_map_only
from mm.types import IGNORE, Features


def pick(x: Any, rows: Any) -> Any:
    """Return some rows of a Tensor, or of all tensors of a Batch, an Output, Features and the like."""
    return tree_map_only(Tensor, lambda part: part[rows], x)


def unlabelled_value(x: Tensor) -> float:
    """Return the value that stands for no label in a tensor of targets: IGNORE of integers, NaN of floats."""
    return torch.nan if x.is_floating_point() else IGNORE


def labelled(target: Tensor) -> Tensor:
    """Return whether each row of targets, (B, ...), has a label, (B,) bool."""
    return (~target.isnan() if target.is_floating_point() else target != IGNORE).unsqueeze(1).flatten(1).any(1)


def mask_inputs(features: dict[str, Features], keep: Sequence[str]) -> dict[str, Features]:
    """Return the features of several inputs with every input outside `keep` absent."""
    return {name: f if name in keep else absent(f) for name, f in features.items()}


def absent(features: Features) -> Features:
    """Return features with every row absent."""
    return features._replace(mask=torch.zeros_like(features.mask), pooled=torch.zeros_like(features.pooled))
