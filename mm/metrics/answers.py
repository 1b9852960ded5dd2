"""Metrics of SQuAD for short answers, which ignore articles, punctuation and case (Rajpurkar et al. 2016)."""

import re
import string
from abc import abstractmethod
from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from torchmetrics import MeanMetric

from mm.configurable import Configurable

NORMALIZE = ("squad", "casefold")


def words(text: str) -> list[str]:
    """Split a text into words as the SQuAD script does: lower case, without punctuation and articles."""
    bare = "".join(letter for letter in text.lower() if letter not in string.punctuation)
    return re.sub(r"\b(a|an|the)\b", " ", bare).split()


def overlap(predicted: str, truth: str) -> float:
    """Return the F1 of the words of two answers.

    If an answer has no words, the result is 1 if the other has none either and else 0, as in SQuAD 2.
    """
    one, other = Counter(words(predicted)), Counter(words(truth))
    if not one or not other:
        return float(one == other)
    return 2 * (one & other).total() / (one.total() + other.total())


class _Answers(MeanMetric):
    """Mean over questions of the best score over the right answers.

    `update` takes a list of predicted texts, and for each of them a list of right answers.
    """

    higher_is_better = True

    @abstractmethod
    def measure(self, predicted: str, right: str) -> float: ...

    def update(self, preds: Sequence[str], target: Sequence[Sequence[str]]) -> None:  # type: ignore[override]
        best = [
            max(self.measure(predicted, one) for one in right) for predicted, right in zip(preds, target, strict=True)
        ]
        super().update(torch.tensor(best))


class ExactMatch(_Answers, Configurable):
    """Fraction of the questions whose predicted answer has the same words as a right answer, in the same order.

    Args:
        normalize: "squad" ignores case, punctuation and articles, as the SQuAD script does; "casefold" ignores only
            case, so that 1.5 differs from 15, and "a" is a possible answer.
        **kwargs: Arguments of `torchmetrics.Metric`.

    Raises:
        ValueError: If `normalize` is unknown.
    """

    def __init__(self, normalize: str = "squad", **kwargs: Any):
        super().__init__(**kwargs)
        if normalize not in NORMALIZE:
            raise ValueError(f"exact_match.normalize: got '{normalize}', wanted one of {', '.join(NORMALIZE)}")
        self.normalize = normalize

    def measure(self, predicted: str, right: str) -> float:
        if self.normalize == "casefold":
            return float(predicted.lower().split() == right.lower().split())
        return float(words(predicted) == words(right))


class AnswerF1(_Answers, Configurable):
    """Mean F1 of the words of the predicted answers, each compared with its best right answer, as in SQuAD."""

    def measure(self, predicted: str, right: str) -> float:
        return overlap(predicted, right)
