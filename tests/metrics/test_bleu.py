"""Beside sacreBLEU itself, also where no four words in a row are right; chrF as a head's yaml has it."""

from pathlib import Path

import pytest
import sacrebleu
from omegaconf import OmegaConf
from torchmetrics.text import CHRFScore

import conf
from mm.metrics.bleu import Bleu

RIGHT = ["Ein Hund läuft über eine Straße.", "Zwei Katzen schlafen auf dem Sofa und träumen.", "Nichts."]
SAID = {
    "close": ["Ein Hund läuft über eine Straße .", "Zwei Katzen, die auf dem Sofa schlafen", "Nichts"],
    "apart": ["ein Hund läuft auf die Straße .", "zwei Katzen, die auf dem Sofa schlafen", ""],
    "wrong": ["x", "y z", "w"],
}


@pytest.mark.parametrize("said", SAID.values(), ids=list(SAID))
def test_bleu_and_chrf(said):
    how = OmegaConf.load(Path(conf.__file__).parent / "model/heads/seq2seq.yaml").metrics.chrf
    chrf = CHRFScore(n_word_order=how.n_word_order)
    for metric, wanted in ((Bleu(), sacrebleu.corpus_bleu), (chrf, sacrebleu.corpus_chrf)):
        for one, other in zip(said, RIGHT, strict=True):  # in batches
            metric.update([one], [[other]])
        assert 100 * float(metric.compute()) == pytest.approx(wanted(said, [RIGHT]).score, abs=1e-3)
