"""Exclusion of absent rows from the batch statistics of an encoder.

A row that lacks an input passes through the encoder as a dummy tensor, and its results are masked afterwards. This does
not suffice for batch norm, which mixes the rows of a batch: in training its running statistics would include the
dummies.
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

LEAST = 2  # minimum number of rows for batch statistics; a single row would be normalised to zero mean by itself


def batch_norms(module: nn.Module) -> list[Any]:
    """Return the submodules in training mode that compute statistics over the rows of a batch.

    These are torch's batch norms and their subclasses, and every other layer with a buffer named `running_...`, such as
    timm's EvoNorm or an instance norm with running statistics.
    """
    return [
        m
        for m in module.modules()
        if m.training and (isinstance(m, BatchNorm) or any(name.startswith("running_") for name in m._buffers))
    ]


def encode_present(
    module: nn.Module, encode: Callable[[Tensor, Tensor], Features], x: Tensor, mask: Tensor
) -> Features:
    """Encode a batch such that absent rows do not influence batch statistics.

    If `module` has a batch norm in training mode, only the present rows are encoded, and the results are placed at
    their rows of the batch. With fewer than two present rows, batch norm uses its running statistics and does not
    update them. In all other cases, including evaluation and export, this is `encode(x, mask)`.

    Args:
        module: The encoder.
        encode: The forward method of the encoder.
        x: Input of the encoder, (B, ...).
        mask: Mask of the input, (B, T) bool; a row is absent if it is all False.

    Returns:
        Features of all B rows, with zeros in absent rows.
    """
    norms = batch_norms(module) if module.training else []
    if not norms:
        return encode(x, mask)
    rows = mask.any(1).nonzero().squeeze(1)
    total = count_over_processes(len(rows), norms, x.device)
    if len(rows) == len(mask) and total >= LEAST:
        return encode(x, mask)
    # A batch without any present row is also encoded, so that every parameter gets a (zero) gradient, for which the
    # other processes wait. Its single dummy row is dropped afterwards.
    used = rows if len(rows) else rows.new_zeros(1)
    with running_statistics(norms) if total < LEAST else without_rows(norms if not len(rows) else []):
        features = encode(x[used], mask[used])
    return spread(features, rows, len(mask))


def spread(features: Features, rows: Tensor, count: int) -> Features:
    """Place the first len(rows) rows of `features` at the indices `rows` of a batch of `count` rows of zeros."""
    first = (part[: len(rows)] for part in features)
    return Features(*(part.new_zeros(count, *part.shape[1:]).index_copy(0, rows, part) for part in first))


def count_over_processes(count: int, norms: Sequence[nn.Module], device: torch.device) -> int:
    """Sum a row count over the processes that `SyncBatchNorm` combines; without one, return the count itself.

    All processes have to agree on whether they compute statistics, because each waits for those of the others.

    Args:
        count: Number of present rows of this process.
        norms: The batch norms.
        device: Device of the batch.
    """
    group = synchronised(norms)
    if group is None:
        return count
    total = torch.tensor(count, device=device)
    dist.all_reduce(total, group=group)
    return int(total)


def synchronised(norms: Sequence[nn.Module]) -> Any:
    """Return the process group of the first SyncBatchNorm; None if there is none or if the group has one process."""
    found = [m for m in norms if isinstance(m, SyncBatchNorm)]
    if not found or not dist.is_available() or not dist.is_initialized():
        return None
    group = found[0].process_group or dist.group.WORLD
    return group if dist.get_world_size(group) > 1 else None


@contextmanager
def running_statistics(norms: Sequence[nn.Module]) -> Iterator[None]:
    """Context manager in which batch norms use their running statistics and do not update them."""
    for norm in norms:
        norm.training = False
    try:
        yield
    finally:
        for norm in norms:
            norm.training = True


@contextmanager
def without_rows(norms: Sequence[Any]) -> Iterator[None]:
    """Context manager in which batch norms contribute no rows to the statistics of other processes.

    This holds for forward and backward. Their outputs are normalised by their running statistics.
    """

    def forward(norm: Any, original: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        def run(x: Tensor) -> Tensor:
            mean, variance = norm.running_mean, norm.running_var  # cloned below, because backward reads them later
            y = F.batch_norm(x, mean.clone(), variance.clone(), norm.weight, norm.bias, False, 0.0, norm.eps)
            return y + original(x[:0]).sum()

        return run

    with ExitStack() as stack:
        for norm in norms:
            norm.forward = forward(norm, norm.forward)
            stack.callback(delattr, norm, "forward")
        yield
