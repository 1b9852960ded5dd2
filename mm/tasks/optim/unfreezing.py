"""Gradual unfreezing: encoders begin to learn block after block, the last first (Howard & Ruder 2018)."""

from torch import nn
from torch.distributed.tensor import DTensor

from mm.tasks.optim.parameters import layers_above


class Unfreezing:
    """Of every encoder one block more learns after each `every` epochs; all else learns from the first epoch on.

    In the first epochs no block does, then the last one with what comes after it (a norm, a pooling), at the end the
    embeddings, in the order that the encoder states by `layer_order`. What learns follows from the epoch alone, so that
    a run that is resumed goes on as it was. Optimizers have all parameters from the start, and pass over those that
    have no gradient. Errors: ValueError where nothing could be unfrozen, or an encoder states no order.
    """

    def __init__(self, model: nn.Module, every: int):
        if type(every) is not int or every < 1:
            raise ValueError(f"task.gradual_unfreeze: got {every}, wanted whole epochs, 1 or more, or null")
        self.every = every
        learning = [name for name, p in model.named_parameters() if p.requires_grad]
        # parameter of an encoder -> how many blocks are opened before its own
        self.blocks = layers_above(model, learning, "gradual_unfreeze")
        if not self.blocks:
            raise ValueError("task.gradual_unfreeze: task.freeze leaves nothing of the encoders to unfreeze")
        self.model = model
        self.epoch = -1
        self.closed: list[nn.Parameter] = []

    def begin(self, epoch: int, cut: bool) -> str | None:
        """What learns in an epoch; cut: nothing is computed for the rest. -> in words, where that has changed"""
        self.epoch, before = epoch, len(self.closed)
        opened, now = epoch // self.every, dict(self.model.named_parameters())
        parameters = {name: now[name] for name in self.blocks}  # sharding puts others in the place of the first ones
        self.closed = [p for name, p in parameters.items() if self.blocks[name] >= opened]
        if cut:
            for name, parameter in parameters.items():
                parameter.requires_grad_(self.blocks[name] < opened)
        if len(self.closed) == before:
            return None
        learn = sum(p.numel() for p in parameters.values()) - sum(p.numel() for p in self.closed)
        whole = max(self.blocks.values()) + 1
        return f"epoch {epoch}: {min(opened, whole)} of {whole} blocks of the encoders learn, {learn:,} weights"

    def drop(self) -> None:
        """Forget the gradients of what does not learn yet: processes that wait for each other's had to compute them."""
        for parameter in self.closed:
            parameter.grad = None


def can_cut(wrapped: nn.Module | None) -> bool:
    """Whether gradients may be left out: not where processes share them, who have agreed on which there are."""
    return not isinstance(wrapped, nn.parallel.DistributedDataParallel) and not any(
        isinstance(p, DTensor) for p in (wrapped.parameters() if wrapped else ())
    )
