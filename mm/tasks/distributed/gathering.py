"""Embedded rows of all processes together, with gradient, and windows of one row as one item."""

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mm.protocols import Offers
from mm.types import IGNORE, Embedded
from mm.windows import directions


class Loss(Protocol):
    """Compares the rows of this process with those of all."""

    temperature: nn.Module
    logq_correction: bool  # whether it reads Embedded.log_q

    def groups(self, inputs: int) -> Sequence[tuple[int, ...]]:
        """Which of so many inputs are compared with one another."""
        ...

    def __call__(self, mine: Embedded, everyone: Embedded, start: int) -> dict[tuple[int, ...], tuple[Tensor, Tensor]]:
        """start: where mine begin among everyone's -> group of inputs -> (sum over mine, count)"""
        ...


@runtime_checkable
class ReadsContent(Protocol, metaclass=Offers):
    """A metric of retrieval whose `update` also takes what each side of each row holds, as of `content`."""

    def contents(self) -> Tensor | None:
        """What each side of each row holds, (B, N) int64; None where `update` was not given it."""
        ...


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


def compare(loss: Loss, mine: Embedded) -> dict[tuple[int, ...], tuple[Tensor, Tensor]]:
    """The loss of this process's rows among those of all, in full precision."""
    several = torch.distributed.is_available() and torch.distributed.is_initialized()
    world, rank = (torch.distributed.get_world_size(), torch.distributed.get_rank()) if several else (1, 0)
    everyone, start = gather(mine, world, rank)
    with torch.autocast(mine.vectors.device.type, enabled=False):
        return loss(mine, everyone, start)


def unit(vectors: Tensor) -> Tensor:
    """Of length 1. bfloat16 has three digits: too few to tell close vectors apart."""
    return F.normalize(vectors.to(torch.promote_types(vectors.dtype, torch.float32)), dim=-1)


def retrieved(retrieval: Any, compared: Sequence[str]) -> dict[str, dict[str, Tensor]]:
    """Ordered pair, text->vision: a text asks, pictures are searched -> metric -> value. "" has the mean of all pairs.

    retrieval: of mm.metrics; it starts anew.
    """
    pairs: dict[tuple[int, int], dict[str, Tensor]] = retrieval.compute()
    retrieval.reset()
    ups = [name for name, up in retrieval.names().items() if pairs and up]
    means = {name: torch.stack([found[name] for found in pairs.values()]).mean() for name in ups}
    return {"": means} | {arrow(compared, pair): found for pair, found in pairs.items()}


def measurable(retrieval: Any, compared: Sequence[str]) -> dict[str, dict[str, bool]]:
    """As retrieved, before anything is -> whether higher is better."""
    names: dict[str, bool] = retrieval.names()
    pairs = retrieval.queries(len(compared))
    return {"": {name: up for name, up in names.items() if up}} | {arrow(compared, pair): names for pair in pairs}


def arrow(compared: Sequence[str], pair: tuple[int, ...]) -> str:
    return "->".join(compared[i] for i in pair)


def logged(values: dict[str, Tensor]) -> dict[str, Tensor]:
    """Of a validation, what tells how good the model is."""
    return {n: v for n, v in values.items() if not n.endswith("/rows") and "chance@" not in n}


def merge(mine: Embedded) -> tuple[Tensor, Tensor, Tensor]:
    """Vectors, presence and numbers of the items: a row of several windows is one, of their mean; filler is none."""
    row, vectors, present = directions(mine.vectors, mine.present, mine.row)
    return vectors[row >= 0], present[row >= 0], row[row >= 0]
