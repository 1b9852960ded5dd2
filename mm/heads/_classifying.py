"""What heads share that tell classes by a linear layer: weights of the classes, and the loss."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mm.types import IGNORE


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
    if len(weights) != len(classes):
        raise ValueError(
            f"class_weights: got {len(weights)} numbers, wanted {len(classes)}, in the order {', '.join(classes)}"
        )
    return torch.tensor(list(weights), dtype=torch.float32)


def check_loss(gamma: float, smoothing: float = 0.0) -> None:
    """Errors: ValueError where a number is out of range."""
    if not 0 <= smoothing < 1:
        raise ValueError(f"label_smoothing: got {smoothing}, wanted a part from 0 to below 1")
    if not gamma >= 0:
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


class LinearClassifier(nn.Module):
    """A linear layer after dropout, and how much each class weighs in its loss. A child gives `forward`.

    classes: their names; embed_dim: width of the fused features; class_weights: None, "balanced" by `counts` (training
    rows, or words, of each class) or one number per class; label_smoothing: Szegedy 2016; focal_gamma: see class_loss;
    weight: of this head's loss among those of several heads.
    Errors: ValueError where the class weights don't match the classes, or a number is out of range.
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
        super().__init__()
        check_loss(focal_gamma, label_smoothing)
        self.classes = list(classes)
        self.label_smoothing = label_smoothing
        self.focal_gamma = focal_gamma
        self.weight = weight
        self.drop = nn.Dropout(dropout)
        self.linear = nn.Linear(embed_dim, len(self.classes))
        # Not saved: the config has them, and only training reads them.
        self.class_weights: Tensor | None
        self.register_buffer("class_weights", settle_weights(class_weights, self.classes, counts), persistent=False)

    def class_loss(self, logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """As class_loss, with the numbers of this head."""
        return class_loss(logits, target, self.class_weights, self.label_smoothing, self.focal_gamma)

    def tempered(self, prediction: Tensor, temperature: float) -> Tensor:
        return prediction.float() / temperature
