"""One of several classes."""

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from mm.heads._classifying import LinearClassifier
from mm.types import IGNORE, Features


def misfit(logits: Tensor) -> Tensor:
    """1 - probability of each class, as LAC has it (Sadinle 2019), but 0 of the best, so that no set is empty.

    (B, C) -> (B, C)
    """
    p = logits.float().softmax(-1)
    return (1 - p).scatter(1, p.argmax(1, keepdim=True), 0.0)


class ClassificationHead(LinearClassifier):
    """Linear classifier of the pooled vector. The arguments are LinearClassifier's."""

    input = None

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

    def region(self, prediction: Tensor, quantiles: Sequence[float]) -> tuple[list[dict[str, Any]], Tensor]:
        """-> {"set": [class, ...]} per row, the most probable first, and how many these are (B,)"""
        worst = misfit(prediction)
        size = (worst <= quantiles[0]).sum(1)
        order = worst.argsort(1).tolist()
        rows = [{"set": [self.classes[i] for i in best[:count]]} for best, count in zip(order, size.tolist())]
        return rows, size

    def decode(self, prediction: Tensor, fused: Features, meta: dict[str, Tensor]) -> list[dict[str, Any]]:
        """(B, C) -> {"prediction": class, "probability": {class: 0..1}} per row"""
        return [
            {
                "prediction": self.classes[row.argmax()],
                "probability": dict(zip(self.classes, row.tolist(), strict=True)),
            }
            for row in prediction.float().softmax(-1).cpu()
        ]

    def merge(self, prediction: Tensor, group: Tensor, count: int) -> Tensor:
        """Mean of the windows' log-probabilities. (B, C), (B,) -> (count, C)"""
        member = F.one_hot(group, count).T.float()  # (count, B)
        return member @ prediction.float().log_softmax(-1) / member.sum(1, keepdim=True)
