"""Gradual unfreezing: train the encoders block by block, starting with the last block (Howard and Ruder 2018)."""

from torch import nn
from torch.distributed.tensor import DTensor

from mm.tasks.optim.parameters import layers_above


class Unfreezing:
    """Train one more block of every encoder after each `every` epochs; all other parts train from the first epoch on.

    At first no block of an encoder is trained. Then comes the last block with the layers after it (a norm, a pooling),
    and at the end the embeddings, in the order of the encoder's `layer_order`. The trained blocks depend on the epoch
    alone, so a resumed run continues correctly. Optimizers have all parameters from the start, and skip those without a
    gradient.

    Args:
        model: The model, with `encoders`.
        every: Number of epochs after which the next block is trained.

    Raises:
        ValueError: If `every` is not a positive integer, if all encoders are frozen, or if an encoder does not state
            the order of its layers.
    """

    def __init__(self, model: nn.Module, every: int):
        if type(every) is not int or every < 1:
            raise ValueError(f"task.gradual_unfreeze: got {every}, wanted whole epochs, 1 or more, or null")
        self.every = every
        learning = [name for name, p in model.named_parameters() if p.requires_grad]
        # parameter name to the number of blocks that are unfrozen before its own
        self.blocks = layers_above(model, learning, "gradual_unfreeze")
        if not self.blocks:
            raise ValueError("task.gradual_unfreeze: task.freeze leaves nothing of the encoders to unfreeze")
        self.model = model
        self.epoch = -1
        self.closed: list[nn.Parameter] = []

    def begin(self, epoch: int, cut: bool) -> str | None:
        """Freeze and unfreeze the blocks for an epoch.

        Args:
            epoch: Index of the epoch, from 0.
            cut: Whether to set `requires_grad=False` on the frozen blocks, so that no gradients are computed for them.
                Otherwise `drop` has to discard their gradients.

        Returns:
            A line for the log with the number of trained blocks and weights; None if they are those of the previous
            epoch.
        """
        self.epoch, before = epoch, len(self.closed)
        opened, now = epoch // self.every, dict(self.model.named_parameters())
        parameters = {name: now[name] for name in self.blocks}  # looked up again, because sharding replaces them
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
        """Set the gradients of the parameters that are still frozen to None.

        Under DDP and FSDP2 these parameters keep `requires_grad=True`, because every process expects the gradients of
        all parameters. Call this method after the backward pass and before the optimizer step.
        """
        for parameter in self.closed:
            parameter.grad = None


def can_cut(wrapped: nn.Module | None) -> bool:
    """Return whether `requires_grad` may change during training.

    It may not change under DDP and FSDP2, whose processes have agreed on the parameters that get gradients.

    Args:
        wrapped: The model as the strategy has wrapped it, or None.
    """
    return not isinstance(wrapped, nn.parallel.DistributedDataParallel) and not any(
        isinstance(p, DTensor) for p in (wrapped.parameters() if wrapped else ())
    )
