"""BLEU as sacreBLEU computes it, smoothed, from counts that torchmetrics adds up over processes."""

from torch import Tensor, tensor
from torchmetrics.text import SacreBLEUScore

from mm.configurable import Configurable
from mm.extras import require


class Bleu(SacreBLEUScore, Configurable):
    """0..1, of n-grams of 1 to 4 words taken apart by `13a` (Papineni 2002, Post 2018).

    Torchmetrics' own is 0 wherever no four words in a row are right; sacreBLEU halves what it counts for these instead.
    """

    def __init__(self) -> None:
        super().__init__()
        require("sacrebleu", "translation")  # before training, and not at its end

    def compute(self) -> Tensor:
        right, told = (x.int().tolist() for x in (self.numerator, self.denominator))
        sizes = int(self.preds_len), int(self.target_len)
        bleu = require("sacrebleu.metrics.bleu", "translation").BLEU
        found = bleu.compute_bleu(right, told, *sizes, smooth_method="exp")
        return tensor(found.score / 100, device=self.preds_len.device)
