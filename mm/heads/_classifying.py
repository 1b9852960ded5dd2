"""Shared code of the classification heads: class weights, the loss, and a classifier of the pooled vector."""

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
    """Return weights that are inversely proportional to the number of rows of each class, (C,).

    The weight of a class is rows / (classes * rows of the class), as in scikit-learn's "balanced". It is 1 for a class
    without rows.
    """
    rows = torch.tensor(list(counts), dtype=torch.float32)
    return torch.where(rows > 0, rows.sum() / (len(rows) * rows.clamp(min=1)), 1.0)


def resolve_class_weights(
    weights: str | Sequence[float] | None, classes: Sequence[str], counts: Sequence[int]
) -> Tensor | None:
    """Convert the option `class_weights` to one weight per class, (C,), or None.

    Args:
        weights: The option: None, "balanced", or one number per class.
        classes: Names of the classes.
        counts: Training rows of each class, which "balanced" needs.

    Raises:
        ValueError: If the weights or the counts do not match the classes.
    """
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
    """Convert a list with one weight per class to a tensor (C,).

    Args:
        option: Name of the option, for the error message.
        weights: The list.
        classes: Names of the classes.

    Raises:
        ValueError: If there is not one number per class, or if a number is negative or not finite.
    """
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
    """Validate the options of a classification loss.

    Args:
        gamma: Exponent of the focal loss.
        smoothing: Label smoothing.

    Raises:
        ValueError: If a number is out of range.
    """
    if not 0 <= smoothing < 1:
        raise ValueError(f"label_smoothing: got {smoothing}, wanted a part from 0 to below 1")
    if not 0 <= gamma < math.inf:
        raise ValueError(f"focal_gamma: got {gamma}, wanted 0 or more")


def focal(truth: Tensor, gamma: float) -> Tensor:
    """Return the focal factor (1 - p)^gamma of a loss (Lin et al. 2017).

    Args:
        truth: Logarithm of the probability p that is predicted for the true class.
        gamma: Exponent.
    """
    # For gamma below 1, the derivative at p = 1 is infinite, hence the clamp.
    return (-torch.expm1(truth)).clamp(min=1e-6) ** gamma


def class_loss(
    logits: Tensor, target: Tensor, weight: Tensor | None = None, smoothing: float = 0.0, gamma: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Compute the cross-entropy, multiplied with the focal factor of the true class if `gamma` is positive.

    Args:
        logits: Logits, (B, C).
        target: Class indices, (B,); IGNORE for unlabelled rows.
        weight: Weight of each class, (C,); None: all 1.
        smoothing: Label smoothing.
        gamma: Exponent of the focal loss; 0: cross-entropy.

    Returns:
        The sum of the losses of the labelled rows, and their number. With class weights, the second value is the sum of
        the weights of the labelled rows instead, so that their quotient is the weighted mean of torch.
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
    """Module that computes `class_loss` with fixed options.

    Args:
        classes: Names of the classes.
        counts: Number of training rows, or of words, of each class.
        weights: Class weights: None, "balanced" (by `counts`), or one number per class.
        smoothing: Label smoothing (Szegedy et al. 2016).
        gamma: Exponent of the focal loss.

    Raises:
        ValueError: If the weights do not match the classes, or if a number is out of range.
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
        # Not persistent: the config has the weights, and only training uses them.
        self.weights: Tensor | None
        self.register_buffer("weights", resolve_class_weights(weights, classes, counts), persistent=False)

    def forward(self, logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Return the sum of the losses of the labelled rows, and their number or total weight, as `class_loss` does."""
        return class_loss(logits, target, self.weights, self.smoothing, self.gamma)


class PooledClassifier(Head):
    """Linear classifier of the pooled vector, the base class of `ClassificationHead` and `RelationHead`.

    Args:
        classes: Names of the classes, at least two.
        embed_dim: Width D of the fused features.
        counts: Number of training rows of each class.
        dropout: Dropout probability of the pooled vector.
        class_weights: Weight of each class in the loss: None (all 1), `balanced` (inversely proportional to `counts`),
            or one number per class.
        label_smoothing: Fraction of the target probability that is spread evenly over all classes (Szegedy et al.
            2016).
        focal_gamma: Exponent of the focal loss; 0: cross-entropy (Lin et al. 2017).
        weight: Weight of this head's loss in the sum over several heads.

    Raises:
        ValueError: If there are fewer than two classes, if the class weights do not match the classes, or if a number
            is out of range.
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
        """Return the logits (B, C) of the pooled vectors (B, D)."""
        return Categorical(self.linear(self.drop(fused.pooled)))

    def loss(self, prediction: Categorical, target: Tensor, fused: Features) -> tuple[Tensor, Tensor]:
        """Return the sum of the losses of the labelled rows, and their number or total class weight.

        Args:
            prediction: Logits, (B, C).
            target: Class indices, (B,); IGNORE for unlabelled rows.
            fused: The fused Features, which this loss does not use.
        """
        return self.class_loss(prediction.logits, target)
