"""ROUGE F1 of predicted texts, as a single metric."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.functional.text.rouge import rouge_score

from mm.configurable import Configurable

KINDS = ("rouge1", "rouge2", "rougeL")


class Rouge(Metric, Configurable):
    """ROUGE F1 of words, of pairs of words, or of the longest common subsequence (Lin 2004), without stemming.

    `update` takes a list of predicted texts, and for each of them a list of reference texts.

    Args:
        kind: `rouge1` for words, `rouge2` for pairs of words, `rougeL` for the longest common subsequence.
        **kwargs: Arguments of `torchmetrics.Metric`.

    Raises:
        ValueError: If the kind is unknown.
    """

    full_state_update = False
    higher_is_better = True
    total: Tensor
    rows: Tensor

    def __init__(self, kind: str = "rougeL", **kwargs: Any):
        if kind not in KINDS:
            raise ValueError(f"rouge: got kind='{kind}', wanted one of {', '.join(KINDS)}")
        super().__init__(**kwargs)
        self.kind: Any = kind
        for name in ("total", "rows"):
            self.add_state(name, torch.zeros(()), dist_reduce_fx="sum")

    def update(self, preds: Sequence[str], target: Sequence[Sequence[str]]) -> None:
        # The class of torchmetrics has a state per row, which processes with different numbers of rows can't gather.
        found: Any = rouge_score(list(preds), [list(one) for one in target], rouge_keys=self.kind)
        self.total += float(found[f"{self.kind}_fmeasure"]) * len(preds)
        self.rows += len(preds)

    def compute(self) -> Tensor:
        return self.total / self.rows
