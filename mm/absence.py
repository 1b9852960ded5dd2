"""Keep absent rows out of an encoder's batch statistics.

A row without an input goes through the encoder as filler, and everything that it becomes is masked afterwards. Batch
norm is the exception: it mixes the rows of a batch, and in training its running statistics would count the filler.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn import SyncBatchNorm

from mm._compat.torch import BatchNorm
from mm.types import Features

LEAST = 2  # rows that batch statistics need: one row would be normalised to nothing but its own contrast


def batch_norms(module: nn.Module) -> list[Any]:
    """Return the submodules that compute statistics over the rows of a training batch.

    These are torch's batch norms and their subclasses, and every other layer with a buffer named `running_...`, such
    as timm's EvoNorm and an instance norm with running statistics.
    """
    return [
        m
        for m in module.modules()
        if m.training and (isinstance(m, BatchNorm) or any(name.startswith("running_") for name in m._buffers))
    ]


def encode_present(
    module: nn.Module, encode: Callable[[Tensor, Tensor], Features], x: Tensor, mask: Tensor
) -> Features:
    """Encode a batch so that absent rows do not influence batch statistics.

    Where `module` has a batch norm in training mode, only the present rows are encoded, and the result is spread over
    the rows of the batch. With fewer than two present rows batch norm uses its running statistics, which stay as they
    are. In all other cases, evaluation and export included, this is `encode(x, mask)`.

    Args:
        module: The encoder.
        encode: Its forward.
        x: Raw tensor (B, ...).
        mask: (B, T) bool; a row is absent where it is all False.

    Returns:
        Features of all B rows, zeros where a row is absent.
    """
    norms = batch_norms(module) if module.training else []
    if not norms:
        return encode(x, mask)
    rows = mask.any(1).nonzero().squeeze(1)
    total = count_over_processes(len(rows), norms, x.device)
    if len(rows) == len(mask) and total >= LEAST:
        return encode(x, mask)
    # A batch without any present row runs as well, so that every parameter gets a gradient, if of zero: processes
    # wait for each other's. Its one row of filler is dropped again.
    used = rows if len(rows) else rows.new_zeros(1)
    with running_statistics(norms) if total < LEAST else without_rows(norms if not len(rows) else []):
        features = encode(x[used], mask[used])
    return spread(features, rows, len(mask))


def spread(features: Features, rows: Tensor, count: int) -> Features:
    """Put the first len(rows) rows of `features` at `rows` of a batch of `count` rows that are zero elsewhere."""
    first = (part[: len(rows)] for part in features)
    return Features(*(part.new_zeros(count, *part.shape[1:]).index_copy(0, rows, part) for part in first))


def count_over_processes(count: int, norms: Sequence[nn.Module], device: torch.device) -> int:
    """Sum the counts of the processes whose statistics `SyncBatchNorm` computes together; else return the count.

    All processes must agree on whether they compute statistics at all: each waits for those of the others.
    """
    group = synchronised(norms)
    if group is None:
        return count
    total = torch.tensor(count, device=device)
    dist.all_reduce(total, group=group)
    return int(total)


def synchronised(norms: Sequence[nn.Module]) -> Any:
    """Return the process group of the first SyncBatchNorm, None where there is none or it has one process."""
    found = [m for m in norms if isinstance(m, SyncBatchNorm)]
    if not found or not dist.is_available() or not dist.is_initialized():
        return None
    group = found[0].process_group or dist.group.WORLD
    return group if dist.get_world_size(group) > 1 else None


@contextmanager
def running_statistics(norms: Sequence[nn.Module]) -> Iterator[None]:
    """Let batch norms normalise by their running statistics, and leave these as they are."""
    for norm in norms:
        norm.training = False
    try:
        yield
    finally:
        for norm in norms:
            norm.training = True


@contextmanager
def without_rows(norms: Sequence[Any]) -> Iterator[None]:
    """Let batch norms contribute no row to the statistics of other processes, in forward and in backward.

    What they return is normalised by their running statistics.
    """

    def forward(norm: Any, original: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        def run(x: Tensor) -> Tensor:
            mean, variance = norm.running_mean, norm.running_var  # copies: this call's backward reads them later
            y = F.batch_norm(x, mean.clone(), variance.clone(), norm.weight, norm.bias, False, 0.0, norm.eps)
            return y + original(x[:0]).sum()

        return run

    with ExitStack() as stack:
        for norm in norms:
            norm.forward = forward(norm, norm.forward)
            stack.callback(delattr, norm, "forward")
        yield
