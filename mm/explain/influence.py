"""Influence of each input: its fraction of the gradient, and the change of the predictions without it."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from mm.predictions import Prediction
from mm.tensors import mask_inputs, pick
from mm.types import Batch

DEAD = 0.01  # fraction of the gradient, or relative change of the predictions, below which an input has no influence


class Influence(NamedTuple):
    """Influence of one input, measured on the rows that have this input and at least one other input."""

    rows: int  # number of these rows
    gradient: float  # norm of the gradient of the loss at its features, as a fraction of the sum over all inputs
    change: float  # relative change of the predictions without this input
    loss: float  # increase of the loss per row without this input


def influence(model: Any, batch: Batch) -> dict[str, Influence]:
    """Compute the influence of each input on the rows of a batch, by input name.

    Rows that have only one input are left out.

    Args:
        model: The model, which is set to evaluation mode.
        batch: The batch.
    """
    model.eval()
    features = model.encode(batch.inputs, batch.masks)
    leaves = {
        n: f._replace(tokens=f.tokens.detach().requires_grad_(), pooled=f.pooled.detach().requires_grad_())
        for n, f in features.items()
    }
    output = model.predict(leaves, batch.targets)
    total = torch.stack([head_loss(model, output, batch, name).sum() for name in model.heads]).sum()
    wanted = [x for f in leaves.values() for x in (f.tokens, f.pooled)]
    gradients = torch.autograd.grad(total, wanted, allow_unused=True)
    present = torch.stack([f.mask.any(1) for f in features.values()])
    measured = present & (present.sum(0) > 1)  # (inputs, B)
    norms = [
        float(sum(g[rows].pow(2).sum() for g in pair if g is not None)) ** 0.5
        for rows, pair in zip(measured, zip(*[iter(gradients)] * 2), strict=True)
    ]
    found = {}
    with torch.no_grad():
        for i, name in enumerate(features):
            rows = measured[i]
            others = [n for n in features if n != name]
            without = model.predict(mask_inputs(features, others), batch.targets)
            change, more = [], []
            for head in model.heads:
                one, two = (values(pick(x.predictions[head], rows)) for x in (output, without))
                change.append(float((one - two).norm() / one.norm().clamp(min=1e-12)))
                more.append((head_loss(model, without, batch, head) - head_loss(model, output, batch, head))[rows])
            found[name] = Influence(
                int(rows.sum()),
                norms[i] / max(sum(norms), 1e-12),
                sum(change) / len(change),
                float(torch.stack(more).sum(0).nanmean()),
            )
    return found


def head_loss(model: Any, output: Any, batch: Batch, name: str) -> Tensor:
    """Return the loss of one head for each row, (B,), with 0 for unlabelled rows."""
    head, prediction, target = model.heads[name], output.predictions[name], batch.targets[name]
    rows = [slice(i, i + 1) for i in range(len(target))]
    return torch.stack([head.loss(pick(prediction, i), target[i], pick(output.fused, i))[0] for i in rows])


def values(prediction: Prediction) -> Tensor:
    """Return all numbers of a prediction as one vector."""
    return torch.cat([x.flatten() for x in prediction.tensors()])


def dead(influences: dict[str, Influence]) -> dict[str, str]:
    """Return the inputs that have nearly no influence, each with the reason as a text."""
    said = {}
    for name, one in influences.items():
        if one.rows and len(influences) > 1 and one.gradient < DEAD:
            said[name] = f"{one.gradient:.2%} of the gradient reaches it"
        elif one.rows and one.change < DEAD:
            said[name] = f"predictions change by {one.change:.2%} without it"
    return said
