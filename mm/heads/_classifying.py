"""What heads of classes share: how much each class weighs in the loss, and the classifier of the pooled vector."""

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mm.heads.base import Head
from mm.predictions import Categorical
from mm.types import IGNORE, Features


def balanced_weights(counts: Sequence[int]) -> Tensor:
    """rows / (classes * rows of the class), as scikit-learn's "balanced"; 1 for a class without rows. -> (C,)"""
    rows = torch.tensor(list(counts), dtype=torch.float32)
    return torch.where(rows > 0, rows.sum() / (len(rows) * rows.clamp(min=1)), 1.0)


def resolve_class_weights(
    weights: str | Sequence[float] | None, classes: Sequence[str], counts: Sequence[int]
) -> Tensor | None:
    """class_weights as they are typed -> (C,). Errors: ValueError where they don't match the classes."""
    if weights is None:
        return None
    if isinstance(weights, str):
        if weights != "balanced":
            raise ValueError(f"class_weights: got '{weights}', wanted null, balanced or a list of numbers")
        if len(counts) != len(classes):
            raise ValueError(
                f"class_weights=balanced: got {len(counts)} counts, wanted one for each of {len(classes)} classes"
            )
        return balanced_weights(counts)
    return typed_weights("class_weights", weights, classes)


def typed_weights(option: str, weights: Any, classes: Sequence[str]) -> Tensor:
    """A list of numbers, one for each class -> (C,). Errors: ValueError where it is none, or one would unlearn."""
    given = list(weights) if isinstance(weights, Sequence) else [weights]
    if len(given) != len(classes):
        raise ValueError(
            f"{option}: got {len(given)} numbers, wanted {len(classes)}, in the order {', '.join(classes)}"
        )
    for one, name in zip(given, classes):
        if not isinstance(one, int | float) or not 0 <= one < math.inf:
            raise ValueError(f"{option}: got {one} for '{name}', wanted a number, 0 or more")
    return torch.tensor(given, dtype=torch.float32)


def check_loss(gamma: float, smoothing: float = 0.0) -> None:
    """Errors: ValueError where a number is out of range."""
    if not 0 <= smoothing < 1:
        raise ValueError(f"label_smoothing: got {smoothing}, wanted a part from 0 to below 1")
    if not 0 <= gamma < math.inf:
        raise ValueError(f"focal_gamma: got {gamma}, wanted 0 or more")


def focal(truth: Tensor, gamma: float) -> Tensor:
    """Factor (1 - p)^gamma of a loss (Lin 2017). truth: logarithms of the probabilities p of what is true"""
    # A probability of one has no derivative under a power below one.
    return (-torch.expm1(truth)).clamp(min=1e-6) ** gamma


def class_loss(
    logits: Tensor, target: Tensor, weight: Tensor | None = None, smoothing: float = 0.0, gamma: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Cross-entropy, by the focal factor of the true class where gamma > 0.

    (B, C), (B,) with IGNORE, weight (C,) -> (sum, count); with weights the count is the sum of the labelled rows'
    weights, so that sum / count is torch's weighted mean.
    """
    logits = logits.float()
    labelled = target != IGNORE
    index = target.clamp(min=0)
    loss = F.cross_entropy(logits, target, weight, ignore_index=IGNORE, reduction="none", label_smoothing=smoothing)
    if gamma:
        loss = loss * focal(logits.log_softmax(-1).gather(1, index.unsqueeze(1)).squeeze(1), gamma)
    count = labelled.float() if weight is None else weight[index] * labelled
    return loss.sum(), count.sum()


class ClassLoss(nn.Module):
    """class_loss, with its numbers.

    classes: their names; weights: None, "balanced" by `counts` (training rows, or words, of each class) or one number
    per class; smoothing: Szegedy 2016; gamma: of the focal factor.
    Errors: ValueError where the weights don't match the classes, or a number is out of range.
    """

    def __init__(
        self,
        classes: Sequence[str],
        counts: Sequence[int],
        weights: str | Sequence[float] | None,
        smoothing: float,
        gamma: float,
    ):
        super().__init__()
        check_loss(gamma, smoothing)
        self.smoothing = smoothing
        self.gamma = gamma
        # Not saved: the config has them, and only training reads them.
        self.weights: Tensor | None
        self.register_buffer("weights", resolve_class_weights(weights, classes, counts), persistent=False)

    def forward(self, logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """As class_loss."""
        return class_loss(logits, target, self.weights, self.smoothing, self.gamma)


class PooledClassifier(Head):
    """Linear classifier of the pooled vector.

    Args:
        classes: Names of the classes, at least two.
        embed_dim: Width D of the fused features.
        counts: Training rows of each class.
        dropout: Dropout probability of the pooled vector.
        class_weights: None, "balanced" by the counts, or one number per class: factors on the losses of its rows.
        label_smoothing: Part of the truth that is spread over all classes (Szegedy 2016).
        focal_gamma: Exponent of the focal loss, 0 for cross-entropy (Lin 2017).
        weight: Factor on this head's loss among those of several heads.
    """

    def __init__(
        self,
        *,
        classes: Sequence[str],
        embed_dim: int,
        counts: Sequence[int] = (),
        dropout: float = 0.0,
        class_weights: str | Sequence[float] | None = None,
        label_smoothing: float = 0.0,
        focal_gamma: float = 0.0,
        weight: float = 1.0,
    ):
        super().__init__(classes=classes, weight=weight)
        if len(classes) < 2:
            raise ValueError(f"classes: got {list(classes)}, wanted two or more; the training rows have no other")
        self.class_loss = ClassLoss(self.classes, counts, class_weights, label_smoothing, focal_gamma)
        self.drop = nn.Dropout(dropout)
        self.linear = nn.Linear(embed_dim, len(self.classes))

    def forward(self, fused: Features, target: Tensor | None = None) -> Categorical:
        """Classify the pooled vectors. (B, D) -> logits (B, C)"""
        return Categorical(self.linear(self.drop(fused.pooled)))

    def loss(self, prediction: Categorical, target: Tensor, fused: Features) -> tuple[Tensor, Tensor]:
        """(B, C), (B,) -> sum over labelled rows, their count (or their class weights)"""
        return self.class_loss(prediction.logits, target)
