"""The base class of heads. A subclass implements two methods, `forward` and `loss`."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from mm.configurable import Configurable
from mm.predictions import Decoding, Prediction
from mm.types import Features


class Head(Configurable, nn.Module):
    """Base class of heads, each of which predicts one target from the fused features.

    A subclass implements `forward` and `loss`. `forward` returns one of the types of `mm.predictions`, which determines
    the metrics, the merging of windows, calibration, prediction sets and reports.

    Args:
        classes: Names of the classes, labels, tags or symbols, in the order of the logits. Empty for targets without
            classes.
        input: Name of the input for whose tokens the head makes predictions; None: it makes one prediction per row.
        weight: Weight of this head's loss in the sum over several heads.

    Attributes:
        per_window: Whether the loss of a head with an `input` counts windows instead of tokens. If so, it is divided by
            the number of windows of the row, as the loss of a head without an `input` always is. A loss that counts
            tokens is not divided.

    Example:
        >>> class Softmax(Head):
        ...     def __init__(self, *, classes, embed_dim):
        ...         super().__init__(classes=classes)
        ...         self.linear = nn.Linear(embed_dim, len(classes))
        ...
        ...     def forward(self, fused, target=None):
        ...         return Categorical(self.linear(fused.pooled))
        ...
        ...     def loss(self, prediction, target, fused):
        ...         total = cross_entropy(prediction.logits.float(), target, ignore_index=IGNORE, reduction="sum")
        ...         return total, (target != IGNORE).sum()
    """

    per_window: bool = False

    def __init__(self, *, classes: Sequence[str] = (), input: str | None = None, weight: float = 1.0):
        super().__init__()
        self.classes = list(classes)
        self.input = input
        self.weight = weight

    def forward(self, fused: Features, target: Tensor | None = None) -> Prediction:
        """Predict the target from the fused features.

        Args:
            fused: Fused Features with tokens (B, T, D), their mask (B, T), and the pooled vectors (B, D).
            target: Targets of the batch, if they are known. Only heads that are trained with teacher forcing use them.

        Returns:
            One of the types of `mm.predictions`.
        """
        raise NotImplementedError

    def loss(self, prediction: Any, target: Tensor, fused: Features) -> tuple[Tensor, Tensor]:
        """Compute the loss in float32.

        Args:
            prediction: The result of `forward`.
            target: Targets, (B, ...). Unlabelled values are IGNORE in integers and NaN in floating-point numbers.
            fused: The fused Features that `forward` received.

        Returns:
            The sum of the losses, and the number of units that were summed: two scalars, both 0 if there is no label.
            Their quotient is the loss of a batch. A unit is a labelled row, or, for a target of several parts, a
            labelled part of a row: a word, window or symbol, or an object's token. With class weights it counts by its
            weight. Both values add up over the parts of a batch.
        """
        raise NotImplementedError

    @property
    def decoding(self) -> Decoding:
        """Settings with which predictions are decoded. Heads with decoding options extend them."""
        return Decoding(classes=tuple(self.classes), input=self.input)

    def decode(self, prediction: Any, fused: Features, meta: Mapping[str, Tensor]) -> list[dict[str, Any]]:
        """Return one dictionary of plain data per row, whose first key is "prediction".

        Args:
            prediction: The result of `forward`, with merged windows and, if the model is calibrated, calibrated.
            fused: The fused Features of the rows.
            meta: Tensors that are needed for decoding, by name: `Batch.meta`.
        """
        return prediction.decode(self.decoding, meta)
