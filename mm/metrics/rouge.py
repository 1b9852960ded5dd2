"""How much of a summary is that of another, one number of torchmetrics' several."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torchmetrics.text.rouge import ROUGEScore

KINDS = ("rouge1", "rouge2", "rougeL")


class Rouge(ROUGEScore):
    """F1 of words, pairs of words, or the longest common subsequence (Lin 2004), without stemming.

    update: texts, lists of texts that would be right. Errors: ValueError for another kind.
    """

    higher_is_better = True

    def __init__(self, kind: str = "rougeL"):
        if kind not in KINDS:
            raise ValueError(f"rouge: got kind='{kind}', wanted one of {', '.join(KINDS)}")
        super().__init__(rouge_keys=kind)  # type: ignore[arg-type]
        self.kind = kind

    def update(self, preds: Sequence[str], target: Sequence[Sequence[str]]) -> None:  # type: ignore[override]
        super().update(list(preds), [list(one) for one in target])

    def compute(self) -> Tensor:  # type: ignore[override]
        found: Any = super().compute()
        return found[f"{self.kind}_fmeasure"]
