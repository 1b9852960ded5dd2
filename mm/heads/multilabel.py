"""Any number of several labels."""

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
    """pos_weight as it is typed -> (C,); balanced: rows without the label / rows with it, 1 where none or all have it.

    Errors: ValueError where it does not match the labels.
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
    """Predict each of several labels by a linear layer on the pooled vector. A row may be labelled in part.

    Args:
        classes: Names of the labels.
        embed_dim: Width D of the fused features.
        counts: Training rows of each label.
        rows: Number of labelled training rows.
        dropout: Dropout probability of the pooled vector.
        threshold: Probability from which a label is predicted; the calibrated one where there is one.
        pos_weight: None, "balanced", or one number per label: factors on the losses of the rows that have the label.
        focal_gamma: Exponent of the focal loss, 0 for cross-entropy (Lin 2017).
        weight: Factor on this head's loss among those of several heads.

    Raises:
        ValueError: If the threshold is no probability, or the weights don't match the labels.
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
        # Not saved: the config has it, and only training reads it.
        self.pos_weight: Tensor | None
        self.register_buffer("pos_weight", resolve_pos_weight(pos_weight, self.classes, counts, rows), persistent=False)

    def forward(self, fused: Features, target: Tensor | None = None) -> Bernoulli:
        """Classify the pooled vectors. (B, D) -> logits (B, C)"""
        return Bernoulli(self.linear(self.drop(fused.pooled)))

    def loss(self, prediction: Bernoulli, target: Tensor, fused: Features) -> tuple[Tensor, Tensor]:
        """(B, C), (B, C) -> sum of the rows' mean cross-entropies, count; a row labelled by half counts a half"""
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
