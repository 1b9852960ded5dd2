"""What heads share that tell classes: how much each weighs in the loss, and all about one class per row."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mm.configurable import Configurable
from mm.types import IGNORE, Features


def balanced_weights(counts: Sequence[int]) -> Tensor:
    """rows / (classes * rows of the class), as scikit-learn's "balanced"; 1 for a class without rows. -> (C,)"""
    rows = torch.tensor(list(counts), dtype=torch.float32)
    return torch.where(rows > 0, rows.sum() / (len(rows) * rows.clamp(min=1)), 1.0)


def settle_weights(
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
        self.register_buffer("weights", settle_weights(weights, classes, counts), persistent=False)

    def forward(self, logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """As class_loss."""
        return class_loss(logits, target, self.weights, self.smoothing, self.gamma)


def misfit(logits: Tensor) -> Tensor:
    """1 - probability of each class, as LAC has it (Sadinle 2019), but 0 of the best, so that no set is empty.

    (B, C) -> (B, C)
    """
    p = logits.float().softmax(-1)
    return (1 - p).scatter(1, p.argmax(1, keepdim=True), 0.0)


class PooledClassifier(Configurable, nn.Module, ABC):
    """Linear classifier of the pooled vector. A child gives `decode`, by `chances`.

    classes: their names; embed_dim: width of the fused features; counts, class_weights, label_smoothing, focal_gamma:
    see ClassLoss; weight: of this head's loss among those of several heads.
    """

    input = None

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
        super().__init__()
        if len(classes) < 2:
            raise ValueError(f"classes: got {list(classes)}, wanted two or more; the training rows have no other")
        self.classes = list(classes)
        self.weight = weight
        self.class_loss = ClassLoss(self.classes, counts, class_weights, label_smoothing, focal_gamma)
        self.drop = nn.Dropout(dropout)
        self.linear = nn.Linear(embed_dim, len(self.classes))

    @abstractmethod
    def decode(self, prediction: Tensor, fused: Features, meta: dict[str, Tensor]) -> list[dict[str, Any]]:
        """(B, C) -> per row {"prediction": class, ..., "probability": {class: 0..1}}"""

    def forward(self, fused: Features, target: Tensor | None = None) -> Tensor:
        """pooled (B, D) -> logits (B, C)"""
        return self.linear(self.drop(fused.pooled))

    def loss(self, prediction: Tensor, target: Tensor, fused: Features) -> tuple[Tensor, Tensor]:
        """(B, C), (B,) -> sum over labelled rows, their count (or their class weights)"""
        return self.class_loss(prediction, target)

    def score(self, prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C), (B,) -> probabilities (N, C) and classes (N,) of the N labelled rows"""
        labelled = target != IGNORE
        # Probabilities: torchmetrics would take logits that happen to lie in 0..1 for such.
        return prediction[labelled].float().softmax(-1), target[labelled]

    def choices(self, prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C), (B,) -> logits (N, 1, C) and classes (N, 1)"""
        labelled = target != IGNORE
        return prediction[labelled].float().unsqueeze(1), target[labelled].unsqueeze(1)

    def nonconformity(self, prediction: Tensor, target: Tensor) -> Tensor:
        """-> of the true class (N, 1)"""
        labelled = target != IGNORE
        return misfit(prediction[labelled]).gather(1, target[labelled].unsqueeze(1))

    def region(
        self, prediction: Tensor, quantiles: Sequence[float], meta: Mapping[str, Tensor]
    ) -> tuple[list[dict[str, Any]], Tensor]:
        """-> {"set": [class, ...]} per row, the most probable first, and how many these are (B,)"""
        worst = misfit(prediction)
        size = (worst <= quantiles[0]).sum(1)
        order = worst.argsort(1).tolist()
        rows = [{"set": [self.classes[i] for i in best[:count]]} for best, count in zip(order, size.tolist())]
        return rows, size

    def merge(self, prediction: Tensor, group: Tensor, count: int) -> Tensor:
        """Mean of the windows' log-probabilities. (B, C), (B,) -> (count, C)"""
        member = F.one_hot(group, count).T.float()  # (count, B)
        return member @ prediction.float().log_softmax(-1) / member.sum(1, keepdim=True)

    def tempered(self, prediction: Tensor, temperature: float) -> Tensor:
        return prediction.float() / temperature

    def chances(self, prediction: Tensor) -> list[tuple[str, dict[str, float]]]:
        """(B, C) -> of each row the most probable class, and the probabilities of all"""
        return [
            (self.classes[row.argmax()], dict(zip(self.classes, row.tolist(), strict=True)))
            for row in prediction.float().softmax(-1).cpu()
        ]
