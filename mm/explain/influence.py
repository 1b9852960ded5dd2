"""How much each input has to say: the gradient that reaches it, and what changes without it."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from mm.predictions import Prediction
from mm.tensors import mask_inputs, pick
from mm.types import Batch

DEAD = 0.01  # of the whole: less than this, and training or predicting goes on as if the input were not there


class Influence(NamedTuple):
    """Of one input, on the rows that have it and another one as well."""

    rows: int
    gradient: float  # norm of the loss's gradient at its features, as a part of all inputs' together
    change: float  # of the predictions without it, relative to their size
    loss: float  # that the model has without it, less its loss with it; per row


def influence(model: Any, batch: Batch) -> dict[str, Influence]:
    """Input name -> its influence on the rows of a batch; nothing of rows that have it alone."""
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
    norms = [float(sum(g.pow(2).sum() for g in pair if g is not None)) ** 0.5 for pair in zip(*[iter(gradients)] * 2)]
    present = torch.stack([f.mask.any(1) for f in features.values()])
    found = {}
    with torch.no_grad():
        for i, name in enumerate(features):
            rows = present[i] & (present.sum(0) > 1)
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
    """Loss of each row (B,), 0 where it is unlabelled."""
    head, prediction, target = model.heads[name], output.predictions[name], batch.targets[name]
    rows = [slice(i, i + 1) for i in range(len(target))]
    return torch.stack([head.loss(pick(prediction, i), target[i], pick(output.fused, i))[0] for i in rows])


def values(prediction: Prediction) -> Tensor:
    """Return all numbers of a prediction."""
    return torch.cat([x.flatten() for x in prediction.tensors()])


def dead(influences: dict[str, Influence]) -> dict[str, str]:
    """Input name -> why it may as well not be there."""
    said = {}
    for name, one in influences.items():
        if one.rows and len(influences) > 1 and one.gradient < DEAD:
            said[name] = f"{one.gradient:.2%} of the gradient reaches it"
        elif one.rows and one.change < DEAD:
            said[name] = f"predictions change by {one.change:.2%} without it"
    return said
