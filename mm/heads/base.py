"""The base class of heads: two methods to write, everything else follows from the type of the prediction."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from mm.configurable import Configurable
from mm.predictions import Decoding, Prediction
from mm.types import Features


class Head(Configurable, nn.Module):
    """Predict one target from the fused features.

    A head of your own writes `forward` and `loss`. It returns one of the types of `mm.predictions`, from which
    training, metrics, subsets of inputs, windows, calibration, prediction sets and reports follow.

    Args:
        classes: Names of the classes, labels, tags or symbols, in the order of the logits, where there are any.
        input: Name of the input whose tokens the head predicts something of; None: it predicts something of the row.
        weight: Factor on this head's loss among those of several heads.

    Attributes:
        per_window: Whether the loss of a head of tokens counts windows, so that it is divided by how many windows its
            row has. Losses of heads of the row always are, those that count tokens never.

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
        """Predict from the fused features.

        Args:
            fused: Tokens (B, T, D), their mask (B, T), and the pooled vectors (B, D).
            target: The targets of the batch, where they are known, for heads that are taught with them (teacher
                forcing); most heads ignore them.

        Returns:
            One of the types of `mm.predictions`.
        """
        raise NotImplementedError

    def loss(self, prediction: Any, target: Tensor, fused: Features) -> tuple[Tensor, Tensor]:
        """Compute the loss in float32.

        Args:
            prediction: What `forward` returned.
            target: (B, ...); unlabelled: IGNORE in integers, NaN in floating-point numbers.
            fused: As in `forward`.

        Returns:
            The sum over the labelled rows, and how many they are: two scalars, both 0 without a label.
        """
        raise NotImplementedError

    @property
    def decoding(self) -> Decoding:
        """How the predictions of this head become what a person reads; a head with options of its own adds them."""
        return Decoding(classes=tuple(self.classes), input=self.input)

    def decode(self, prediction: Any, fused: Features, meta: Mapping[str, Tensor]) -> list[dict[str, Any]]:
        """Return one dict of plain data per row, whose first key is "prediction".

        Args:
            prediction: What `forward` returned, merged and calibrated where there is need.
            fused: The fused features of the rows.
            meta: That of the batch.
        """
        return prediction.decode(self.decoding, meta)
