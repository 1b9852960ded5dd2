"""BLEU with the smoothing of sacreBLEU, from counts that torchmetrics sums over all processes."""

from torch import Tensor, tensor
from torchmetrics.text import SacreBLEUScore

from mm.configurable import Configurable
from mm.extras import require


class Bleu(SacreBLEUScore, Configurable):
    """BLEU in 0..1, of n-grams of 1 to 4 words with the tokenizer `13a` (Papineni et al. 2002, Post 2018).

    BLEU of torchmetrics is 0 if no n-gram of 4 words is right. This metric replaces counts of 0 by 1/2, 1/4 and so on,
    as sacreBLEU does (`smooth_method="exp"`).
    """

    def __init__(self) -> None:
        super().__init__()
        require("sacrebleu", "translation")  # raise an error before the training, not at its end

    def compute(self) -> Tensor:
        right, told = (x.int().tolist() for x in (self.numerator, self.denominator))
        sizes = int(self.preds_len), int(self.target_len)
        bleu = require("sacrebleu.metrics.bleu", "translation").BLEU
        found = bleu.compute_bleu(right, told, *sizes, smooth_method="exp")
        return tensor(found.score / 100, device=self.preds_len.device)
