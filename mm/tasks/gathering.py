"""Embedded rows of all processes together, with gradient, and windows of one row as one item."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mm.types import IGNORE, Embedded
from mm.windows import directions


class Gather(torch.autograd.Function):
    """Tensors of one shape of all processes, one after the other; the gradient of each goes back to its own process."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, world: int, rank: int) -> Tensor:
        ctx.rows, ctx.rank = len(x), rank
        found = [torch.empty_like(x) for _ in range(world)]
        torch.distributed.all_gather(found, x.contiguous())
        return torch.cat(found)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        whole = gradients[0].contiguous()
        torch.distributed.all_reduce(whole)
        return whole[ctx.rank * ctx.rows :][: ctx.rows], None, None


def gather(mine: Embedded, world: int, rank: int) -> tuple[Embedded, int]:
    """The rows of all processes, and where mine begin; a process with fewer rows than others adds absent ones."""
    if world == 1:
        return mine, 0
    most = torch.tensor(len(mine.row), device=mine.row.device)
    torch.distributed.all_reduce(most, torch.distributed.ReduceOp.MAX)
    more = int(most) - len(mine.row)
    vectors = Gather.apply(F.pad(mine.vectors, (0, 0, 0, 0, 0, more)), world, rank)
    plain = torch.cat([mine.present.long(), mine.row[:, None] + 1, mine.label[:, None] - IGNORE], 1)  # padded with 0
    plain = Gather.apply(F.pad(plain, (0, 0, 0, more)), world, rank)
    log_q = Gather.apply(F.pad(mine.log_q, (0, more)), world, rank)
    assert isinstance(vectors, Tensor) and isinstance(plain, Tensor) and isinstance(log_q, Tensor)
    everyone = Embedded(vectors, plain[:, :-2].bool(), plain[:, -2] - 1, plain[:, -1] + IGNORE, log_q)
    return everyone, rank * int(most)


def merge(mine: Embedded) -> tuple[Tensor, Tensor, Tensor]:
    """Vectors, presence and numbers of the items: a row of several windows is one, of their mean; filler is none."""
    row, vectors, present = directions(mine.vectors, mine.present, mine.row)
    return vectors[row >= 0], present[row >= 0], row[row >= 0]
