"""Head for targets with any number of labels per row."""

from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mm.heads._classifying import check_loss, focal, typed_weights
from mm.heads.base import Head
from mm.predictions import Bernoulli, Decoding
from mm.types import IGNORE, Features


def resolve_pos_weight(
    weights: str | Sequence[float] | None, classes: Sequence[str], counts: Sequence[int], rows: int
) -> Tensor | None:
    """Convert the option `pos_weight` to one weight per label, (C,), or None.

    The "balanced" weight of a label is (rows without the label) / (rows with it), and 1 if all rows or no rows have it.

    Args:
        weights: The option: None, "balanced", or one number per label.
        classes: Names of the labels.
        counts: Number of training rows with each label.
        rows: Number of labelled training rows.

    Raises:
        ValueError: If the weights or the counts do not match the labels.
    """
    if weights is None:
        return None
    if isinstance(weights, str) and weights != "balanced":
        raise ValueError(f"pos_weight: got '{weights}', wanted null, balanced or a list of numbers")
    if not isinstance(weights, str):
        return typed_weights("pos_weight", weights, classes)
    if len(counts) != len(classes):
        raise ValueError(f"pos_weight=balanced: got {len(counts)} counts, wanted one for each of {len(classes)} labels")
    positive = torch.tensor(counts, dtype=torch.float32)
    return torch.where((positive > 0) & (positive < rows), (rows - positive) / positive.clamp(min=1), 1.0)


class MultilabelHead(Head):
    """Predict any number of labels per row by a linear layer on the pooled vector.

    Some labels of a row may be unknown.

    Args:
        classes: Names of the labels.
        embed_dim: Width D of the fused features.
        counts: Number of training rows with each label.
        rows: Number of labelled training rows.
        dropout: Dropout probability of the pooled vector.
        threshold: Probability from which a label is predicted. It is compared with the calibrated probability if the
            model is calibrated.
        pos_weight: Weight of the positive rows of each label in the loss: None (all 1), `balanced`, or one number per
            label.
        focal_gamma: Exponent of the focal loss; 0: cross-entropy (Lin et al. 2017).
        weight: Weight of this head's loss in the sum over several heads.

    Raises:
        ValueError: If the threshold is not in 0..1, if `focal_gamma` is out of range, or if the weights do not match
            the labels.
    """

    def __init__(
        self,
        *,
        classes: Sequence[str],
        embed_dim: int,
        counts: Sequence[int] = (),
        rows: int = 0,
        dropout: float = 0.0,
        threshold: float = 0.5,
        pos_weight: str | Sequence[float] | None = None,
        focal_gamma: float = 0.0,
        weight: float = 1.0,
    ):
        super().__init__(classes=classes, weight=weight)
        if not 0 <= threshold <= 1:
            raise ValueError(f"threshold: got {threshold}, wanted a probability")
        check_loss(focal_gamma)
        self.threshold = threshold
        self.focal_gamma = focal_gamma
        self.drop = nn.Dropout(dropout)
        self.linear = nn.Linear(embed_dim, len(self.classes))
        # Not persistent: the config has the weights, and only training uses them.
        self.pos_weight: Tensor | None
        self.register_buffer("pos_weight", resolve_pos_weight(pos_weight, self.classes, counts, rows), persistent=False)

    def forward(self, fused: Features, target: Tensor | None = None) -> Bernoulli:
        """Return the logits (B, C) of the pooled vectors (B, D)."""
        return Bernoulli(self.linear(self.drop(fused.pooled)))

    def loss(self, prediction: Bernoulli, target: Tensor, fused: Features) -> tuple[Tensor, Tensor]:
        """Return the sum over rows of the mean binary cross-entropy of the labels, and the number of rows.

        A row with only some known labels counts by the fraction of its known labels.

        Args:
            prediction: Logits, (B, C).
            target: 1, 0 or IGNORE (unknown) for each label, (B, C).
            fused: The fused Features, which this loss does not use.
        """
        labelled = target != IGNORE
        logits, truth = prediction.logits.float(), target.clamp(min=0).float()
        loss = F.binary_cross_entropy_with_logits(logits, truth, reduction="none", pos_weight=self.pos_weight)
        if self.focal_gamma:
            loss = loss * focal(F.logsigmoid(torch.where(truth > 0, logits, -logits)), self.focal_gamma)
        loss = loss * labelled
        return loss.sum() / len(self.classes), labelled.sum() / len(self.classes)

    @property
    def decoding(self) -> Decoding:
        return replace(super().decoding, threshold=self.threshold)
