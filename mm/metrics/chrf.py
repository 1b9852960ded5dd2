"""chrF as sacreBLEU computes it, from counts that are summed over all processes."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from mm.configurable import Configurable
from mm.extras import require


class ChrF(Metric, Configurable):
    """F-score in 0..1 of n-grams of characters, and optionally of words (Popović 2015, 2017), computed by sacreBLEU.

    `CHRFScore` of torchmetrics also averages over the n-gram orders for which the texts are too short, so that a
    perfect prediction of two letters has a score of 1/3. sacreBLEU leaves these orders out.

    Args:
        n_char_order: Maximum length of the n-grams of characters.
        n_word_order: Maximum length of the n-grams of words: 0 is chrF, 2 is chrF++.
        beta: Weight of recall relative to precision.
        **kwargs: Arguments of `torchmetrics.Metric`.
    """

    full_state_update = False
    higher_is_better = True
    counts: Tensor  # (3 * orders,): for each order the n-grams of the predictions, of the references, and of both

    def __init__(self, n_char_order: int = 6, n_word_order: int = 0, beta: int = 2, **kwargs: Any):
        super().__init__(**kwargs)
        chrf = require("sacrebleu.metrics.chrf", "translation").CHRF
        self.chrf: Any = chrf(n_char_order, n_word_order, beta)
        counts = torch.zeros(3 * (n_char_order + n_word_order), dtype=torch.long)
        self.add_state("counts", counts, dist_reduce_fx="sum")

    def update(self, preds: Sequence[str], target: Sequence[Sequence[str]]) -> None:
        """Count the n-grams of a batch.

        Args:
            preds: Predicted texts.
            target: List of reference texts of each predicted text. The reference with the best score is used.
        """
        for text, references in zip(preds, target, strict=True):
            (counts,) = self.chrf._extract_corpus_statistics([text], [[one] for one in references])
            self.counts += torch.tensor(counts, device=self.counts.device)

    def compute(self) -> Tensor:
        score = self.chrf._compute_f_score(self.counts.tolist())
        return torch.tensor(score / 100, device=self.counts.device)
