"""Any number of several labels."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mm.types import IGNORE, Features


class MultilabelHead(nn.Module):
    """One linear yes or no per label of the pooled vector.

    classes: names of the labels; embed_dim: width of the fused features; threshold: the probability from which a label
    is predicted, the calibrated one where there is; weight: of this head's loss among those of several heads. A row may
    be labelled in part.
    Errors: ValueError for a threshold that is no probability.
    """

    input = None

    def __init__(
        self,
        *,
        classes: Sequence[str],
        embed_dim: int,
        dropout: float = 0.0,
        threshold: float = 0.5,
        weight: float = 1.0,
    ):
        super().__init__()
        if not 0 <= threshold <= 1:
            raise ValueError(f"threshold: got {threshold}, wanted a probability")
        self.classes = list(classes)
        self.threshold = threshold
        self.weight = weight
        self.drop = nn.Dropout(dropout)
        self.linear = nn.Linear(embed_dim, len(self.classes))

    def forward(self, fused: Features, target: Tensor | None = None) -> Tensor:
        """pooled (B, D) -> logits (B, C)"""
        return self.linear(self.drop(fused.pooled))

    def loss(self, prediction: Tensor, target: Tensor, fused: Features) -> tuple[Tensor, Tensor]:
        """(B, C), (B, C) -> sum of the rows' mean cross-entropies, count; a row labelled by half counts a half"""
        labelled = target != IGNORE
        truth = target.clamp(min=0).float()
        loss = F.binary_cross_entropy_with_logits(prediction.float(), truth, reduction="none") * labelled
        return loss.sum() / len(self.classes), labelled.sum() / len(self.classes)

    def score(self, prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C), (B, C) -> probabilities (N, C) and truth (N, C) of the N rows with a label; IGNORE may remain"""
        labelled = (target != IGNORE).any(1)
        return prediction[labelled].float().sigmoid(), target[labelled]

    def choices(self, prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C), (B, C) -> logits (N, C, 1) and truth (N, C): a yes or no of each label"""
        labelled = (target != IGNORE).any(1)
        return prediction[labelled].float().unsqueeze(-1), target[labelled]

    def tempered(self, prediction: Tensor, temperature: float) -> Tensor:
        return prediction.float() / temperature

    def nonconformity(self, prediction: Tensor, target: Tensor) -> Tensor:
        """-> of each label's truth (N, C), NaN where unlabelled"""
        labelled = (target != IGNORE).any(1)
        target = target[labelled]
        no, yes = self.misfit(prediction[labelled])
        return torch.where(target == IGNORE, torch.nan, torch.where(target == 1, yes, no))

    def region(self, prediction: Tensor, quantiles: Sequence[float]) -> tuple[list[dict[str, Any]], Tensor]:
        """-> {"set": {label: [False, True], one of them where the other is unlikely}} per row, their mean size (B,)"""
        limit = torch.tensor(list(quantiles), device=prediction.device)
        keeps = torch.stack(self.misfit(prediction), dim=-1) <= limit.unsqueeze(-1)  # (B, C, 2)
        rows = [
            {"set": {c: [bool(i) for i in (0, 1) if may[i]] for c, may in zip(self.classes, row, strict=True)}}
            for row in keeps.tolist()
        ]
        return rows, keeps.sum(-1).float().mean(1)

    def misfit(self, prediction: Tensor) -> tuple[Tensor, Tensor]:
        """Of a no and of a yes: 1 - its probability (LAC, Sadinle 2019), but 0 of what is predicted. (B, C) each"""
        p = prediction.float().sigmoid()
        chosen = p >= self.threshold
        return p.masked_fill(~chosen, 0.0), (1 - p).masked_fill(chosen, 0.0)

    def decode(self, prediction: Tensor, fused: Features, meta: dict[str, Tensor]) -> list[dict[str, Any]]:
        """(B, C) -> {"prediction": [label, ...], "probability": {label: 0..1}} per row"""
        rows = []
        for row in prediction.float().sigmoid().tolist():
            probability = dict(zip(self.classes, row, strict=True))
            chosen = [label for label, p in probability.items() if p >= self.threshold]
            rows.append({"prediction": chosen, "probability": probability})
        return rows

    def merge(self, prediction: Tensor, group: Tensor, count: int) -> Tensor:
        """Mean of the windows' log-odds. (B, C), (B,) -> (count, C)"""
        member = F.one_hot(group, count).T.float()  # (count, B)
        return member @ prediction.float() / member.sum(1, keepdim=True)
