"""Gathering of the embeddings of all processes, with gradients, and retrieval metrics on the gathered rows.

A row that was split into several windows counts as one item.
"""

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mm.protocols import Offers
from mm.types import IGNORE, Embedded
from mm.windows import directions


class Loss(Protocol):
    """Contrastive loss between the rows of this process and those of all processes.

    Attributes:
        temperature: Module that returns the factor on the similarities.
        logq_correction: Whether the loss uses `Embedded.log_q`.
    """

    temperature: nn.Module
    logq_correction: bool

    def groups(self, inputs: int) -> Sequence[tuple[int, ...]]:
        """Return the groups of inputs that the loss compares with one another, as indices of the inputs.

        Args:
            inputs: Number of inputs.
        """
        ...

    def __call__(self, mine: Embedded, everyone: Embedded, start: int) -> dict[tuple[int, ...], tuple[Tensor, Tensor]]:
        """Compute the loss of the rows of this process.

        Args:
            mine: Embeddings of this process.
            everyone: Embeddings of all processes.
            start: Index in `everyone` of the first row of `mine`.

        Returns:
            Group of inputs to the sum of the loss over the rows of this process and their number.
        """
        ...


@runtime_checkable
class ReadsContent(Protocol, metaclass=Offers):
    """A retrieval metric whose `update` also takes the digests of each row's content, as `content` computes them."""

    def contents(self) -> Tensor | None:
        """Return the content digests of each side of each row, (B, N) int64; None if `update` did not get them."""
        ...


class Gather(torch.autograd.Function):
    """All-gather of tensors of the same shape, concatenated in the order of the ranks, with gradients.

    The gradient of each tensor is summed over all processes and returned to the process that it came from.
    """

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
    """Gather the embeddings of all processes.

    A process with fewer rows than the others adds absent rows at its end.

    Args:
        mine: Embeddings of this process.
        world: Number of processes.
        rank: Rank of this process.

    Returns:
        The embeddings of all processes, and the index in them of the first row of this process.
    """
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
    """Compute a loss of the rows of this process against those of all processes, in float32.

    Args:
        loss: The loss.
        mine: Embeddings of this process.

    Returns:
        Group of inputs to the sum of the loss over the rows of this process and their number.
    """
    several = torch.distributed.is_available() and torch.distributed.is_initialized()
    world, rank = (torch.distributed.get_world_size(), torch.distributed.get_rank()) if several else (1, 0)
    everyone, start = gather(mine, world, rank)
    with torch.autocast(mine.vectors.device.type, enabled=False):
        return loss(mine, everyone, start)


def unit(vectors: Tensor) -> Tensor:
    """Normalise vectors to length 1, in float32 or a wider type.

    bfloat16 has about three significant digits, which is too few to distinguish similar vectors.
    """
    return F.normalize(vectors.to(torch.promote_types(vectors.dtype, torch.float32)), dim=-1)


def retrieved(retrieval: Any, compared: Sequence[str]) -> dict[str, dict[str, Tensor]]:
    """Compute and reset a retrieval metric, and name its results by ordered pairs of inputs.

    In the pair "text->vision" a text is the query and images are searched.

    Args:
        retrieval: A retrieval metric of `mm.metrics`.
        compared: Names of the compared inputs, in the order of the metric.

    Returns:
        Pair to metric name to value. The key "" has the means over all pairs, of the metrics for which higher is
        better.
    """
    pairs: dict[tuple[int, int], dict[str, Tensor]] = retrieval.compute()
    retrieval.reset()
    ups = [name for name, up in retrieval.names().items() if pairs and up]
    means = {name: torch.stack([found[name] for found in pairs.values()]).mean() for name in ups}
    return {"": means} | {arrow(compared, pair): found for pair, found in pairs.items()}


def measurable(retrieval: Any, compared: Sequence[str]) -> dict[str, dict[str, bool]]:
    """Return the metric names of `retrieved`, with whether higher is better, without computing the metrics.

    Args:
        retrieval: A retrieval metric of `mm.metrics`.
        compared: Names of the compared inputs, in the order of the metric.

    Returns:
        Pair to metric name to whether higher is better. The key "" stands for the means over all pairs.
    """
    names: dict[str, bool] = retrieval.names()
    pairs = retrieval.queries(len(compared))
    return {"": {name: up for name, up in names.items() if up}} | {arrow(compared, pair): names for pair in pairs}


def arrow(compared: Sequence[str], pair: tuple[int, ...]) -> str:
    return "->".join(compared[i] for i in pair)


def logged(values: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the validation metrics that describe the quality of the model, without row counts and chance levels."""
    return {n: v for n, v in values.items() if not n.endswith("/rows") and "chance@" not in n}


def merge(mine: Embedded) -> tuple[Tensor, Tensor, Tensor]:
    """Merge the windows of each row into one item, without the rows that only fill up the batches of a process.

    Args:
        mine: Embeddings of the windows.

    Returns:
        Unit vectors of the rows (R, N, D), which are the normalised means of their windows; their presence (R, N) bool;
        and their row indices (R,).
    """
    row, vectors, present = directions(mine.vectors, mine.present, mine.row)
    return vectors[row >= 0], present[row >= 0], row[row >= 0]
