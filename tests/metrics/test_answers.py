import random

import pytest
from torchmetrics.text import SQuAD

from mm.metrics.answers import AnswerF1, ExactMatch

WORDS = ["The", "cat", "a", "dog's", "sees", "it,", "Bird", "an", "..."]


def text(rng: random.Random) -> str:
    return " ".join(["cat", *rng.choices(WORDS, k=rng.randint(0, 5))])


def test_as_torchmetrics_scores_squad():
    rng = random.Random(0)
    told = [text(rng) for _ in range(60)]
    right = [[rng.choice([one, text(rng)]), text(rng)][: rng.randint(1, 2)] for one in told]
    squad = SQuAD()
    squad.update(
        [{"prediction_text": one, "id": str(i)} for i, one in enumerate(told)],
        [{"answers": {"answer_start": [0] * len(r), "text": r}, "id": str(i)} for i, r in enumerate(right)],
    )
    wanted = squad.compute()
    for metric, name in ((ExactMatch(), "exact_match"), (AnswerF1(), "f1")):
        metric.update(told[:20], right[:20])
        metric.update(told[20:], right[20:])
        assert 0 < float(metric.compute()) < 1
        assert 100 * float(metric.compute()) == pytest.approx(float(wanted[name]))


def test_plain_answers_keep_points_and_articles():
    told, right = ["1.5", "-3", "a", "New  York"], [["15"], ["3"], ["the"], ["new york"]]
    for metric, wanted in ((ExactMatch(), 1.0), (ExactMatch(normalize="casefold"), 0.25)):
        metric.update(told, right)
        assert float(metric.compute()) == wanted


def test_no_answer_by_hand():
    """Right to say nothing, wrong to, wrong to say something, and half of the words: as SQuAD 2 counts."""
    told, right = ["", "", "cat", "the old cat"], [[""], ["cat"], [""], ["cats", "cat"]]
    for metric, wanted in ((ExactMatch(), 1 / 4), (AnswerF1(), (1 + 2 / 3) / 4)):
        metric.update(told, right)
        assert float(metric.compute()) == pytest.approx(wanted)
