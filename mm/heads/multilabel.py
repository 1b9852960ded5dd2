"""Any number of several labels."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mm.configurable import Configurable
from mm.heads._classifying import check_loss, focal, typed_weights
from mm.types import IGNORE, Features


def settle_weights(
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
    found = torch.tensor(counts, dtype=torch.float32)
    return torch.where((found > 0) & (found < rows), (rows - found) / found.clamp(min=1), 1.0)


class MultilabelHead(Configurable, nn.Module):
    """One linear yes or no per label of the pooled vector.

    classes: names of the labels; embed_dim: width of the fused features; counts, rows: training rows that have each
    label, and all that are labelled; threshold: the probability from which a label is predicted, the calibrated one
    where there is; pos_weight: None, "balanced" or one number per label, a factor on the loss of what has the label;
    focal_gamma: above 0, losses count by (1 - p)^gamma of the truth (Lin 2017); weight: of this head's loss among those
    of several heads. A row may be labelled in part. Errors: ValueError for a threshold that is no probability, or
    weights that don't match the labels.
    """

    input = None

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
        super().__init__()
        if not 0 <= threshold <= 1:
            raise ValueError(f"threshold: got {threshold}, wanted a probability")
        check_loss(focal_gamma)
        self.classes = list(classes)
        self.threshold = threshold
        self.focal_gamma = focal_gamma
        self.weight = weight
        self.drop = nn.Dropout(dropout)
        self.linear = nn.Linear(embed_dim, len(self.classes))
        # Not saved: the config has it, and only training reads it.
        self.pos_weight: Tensor | None
        self.register_buffer("pos_weight", settle_weights(pos_weight, self.classes, counts, rows), persistent=False)

    def forward(self, fused: Features, target: Tensor | None = None) -> Tensor:
        """pooled (B, D) -> logits (B, C)"""
        return self.linear(self.drop(fused.pooled))

    def loss(self, prediction: Tensor, target: Tensor, fused: Features) -> tuple[Tensor, Tensor]:
        """(B, C), (B, C) -> sum of the rows' mean cross-entropies, count; a row labelled by half counts a half"""
        labelled = target != IGNORE
        logits, truth = prediction.float(), target.clamp(min=0).float()
        loss = F.binary_cross_entropy_with_logits(logits, truth, reduction="none", pos_weight=self.pos_weight)
        if self.focal_gamma:
            loss = loss * focal(F.logsigmoid(torch.where(truth > 0, logits, -logits)), self.focal_gamma)
        loss = loss * labelled
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

    def region(
        self, prediction: Tensor, quantiles: Sequence[float], meta: Mapping[str, Tensor]
    ) -> tuple[list[dict[str, Any]], Tensor]:
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
