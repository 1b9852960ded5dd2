"""A few rows, learnt until nothing is left to learn."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from mm.types import Features


def learn(
    made: Any,
    target: Tensor,
    see: Callable[[], Features],
    more: Iterable[Tensor] = (),
    steps: int = 60,
    lr: float = 0.1,
) -> tuple[Any, Features, Tensor, Tensor]:
    """more: what learns beside the head. -> of the last step its prediction and features, sum of the loss and count"""
    optimizer = torch.optim.Adam([*made.parameters(), *more], lr=lr)
    for _ in range(steps):
        fused = see()
        prediction = made(fused, target)
        total, count = made.loss(prediction, target, fused)
        optimizer.zero_grad()
        (total / count).backward()
        optimizer.step()
    return prediction, fused, total.detach(), count


def pooled(rows: int, width: int = 8) -> Features:
    """Of rows that have nothing in common."""
    x = torch.randn(rows, width, generator=torch.Generator().manual_seed(0))
    return Features(x.unsqueeze(1), torch.ones(rows, 1, dtype=torch.bool), x, torch.zeros(rows, 1, 2))
