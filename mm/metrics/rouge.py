"""How much of a summary is that of another, one number of torchmetrics' several."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.functional.text.rouge import rouge_score

from mm.configurable import Configurable

KINDS = ("rouge1", "rouge2", "rougeL")


class Rouge(Metric, Configurable):
    """Measure the F1 of words, pairs of words, or the longest common subsequence (Lin 2004), without stemming.

    `update` takes texts, and for each a list of reference texts.

    Args:
        kind: "rouge1" for words, "rouge2" for pairs of words, "rougeL" for the longest common subsequence.
        **kwargs: Those of `torchmetrics.Metric`.

    Raises:
        ValueError: If the kind is something else.
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
        # torchmetrics' own class keeps a state per row, which processes that have seen different numbers can't share.
        found: Any = rouge_score(list(preds), [list(one) for one in target], rouge_keys=self.kind)
        self.total += float(found[f"{self.kind}_fmeasure"]) * len(preds)
        self.rows += len(preds)

    def compute(self) -> Tensor:
        return self.total / self.rows
