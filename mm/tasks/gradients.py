"""Gradients of a model: their norms, the groups that are clipped, and parameters that no gradient reaches."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from mm.model import MultimodalModel


def grad_norm(parameters: Sequence[nn.Parameter]) -> Tensor:
    """Return the common norm of the gradients of some parameters, over all processes that have shards of them."""
    norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    return norm.full_tensor() if isinstance(norm, DTensor) else norm


def clipped_groups(given: Sequence[nn.Parameter], separate: Iterable[nn.Parameter]) -> list[list[nn.Parameter]]:
    """Divide parameters into those that are clipped together and those that are clipped by a norm of their own.

    Args:
        given: The parameters.
        separate: Parameters that are clipped by their own norm.

    Returns:
        Up to two groups, none of them empty.
    """
    apart = {id(p) for p in separate}
    sides = [[p for p in given if (id(p) in apart) == there] for there in (False, True)]
    return [side for side in sides if side]


def encoder_norms(model: MultimodalModel) -> dict[str, Tensor]:
    """Return the gradient norm of each encoder with its projection, if there are several encoders."""
    given = {
        name: [
            p
            for part in (model.get_submodule(f"encoders.{name}"), model.projections[name])
            for p in part.parameters()
            if p.grad is not None
        ]
        for name in model.encoders
    }
    return {f"train[{n}]/grad_norm": grad_norm(of) for n, of in given.items() if of} if len(given) > 1 else {}


def check_gradients(model: nn.Module, wrapped: nn.Module | None) -> None:
    """Check under DDP that every trainable parameter has a gradient.

    Args:
        model: The model.
        wrapped: The model as the strategy has wrapped it, or None.

    Raises:
        ValueError: If a parameter has no gradient under DDP, which would raise an error without its name a step later.
    """
    if not isinstance(wrapped, DistributedDataParallel) or wrapped.find_unused_parameters:
        return
    missed = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    if missed:
        raise ValueError(
            f"no gradient reaches {', '.join(missed)}, but DDP waits for it; leave out what is not used (a fusion "
            "that reads tokens makes no use of pool=attention), freeze it with task.freeze, or set "
            "trainer.strategy=ddp_find_unused_parameters_true"
        )
