"""Beside sacreBLEU itself, also where no four words in a row are right; chrF as a head's yaml has it."""

import pytest
import sacrebleu

from mm.metrics.bleu import Bleu
from mm.metrics.chrf import ChrF

RIGHT = ["Ein Hund läuft über eine Straße.", "Zwei Katzen schlafen auf dem Sofa und träumen.", "Nichts."]
SAID = {
    "close": ["Ein Hund läuft über eine Straße .", "Zwei Katzen, die auf dem Sofa schlafen", "Nichts"],
    "apart": ["ein Hund läuft auf die Straße .", "zwei Katzen, die auf dem Sofa schlafen", ""],
    "wrong": ["x", "y z", "w"],
}


@pytest.mark.parametrize("said", SAID.values(), ids=list(SAID))
def test_bleu(said):
    metric = Bleu()
    for one, other in zip(said, RIGHT, strict=True):  # in batches
        metric.update([one], [[other]])
    assert 100 * float(metric.compute()) == pytest.approx(sacrebleu.corpus_bleu(said, [RIGHT]).score, abs=1e-3)


def test_chrf():
    """Torchmetrics' rounds by an epsilon, and counts what is empty otherwise."""
    metric = ChrF()
    metric.update(SAID["close"], [[text] for text in RIGHT])
    assert 100 * float(metric.compute()) == pytest.approx(sacrebleu.corpus_chrf(SAID["close"], [RIGHT]).score, abs=0.01)
