"""Answers in words, as SQuAD scores them: without articles, punctuation and capitals (Rajpurkar 2016)."""

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
    """As SQuAD's script takes a text apart."""
    bare = "".join(letter for letter in text.lower() if letter not in string.punctuation)
    return re.sub(r"\b(a|an|the)\b", " ", bare).split()


def overlap(told: str, truth: str) -> float:
    """F1 of the words; where either has none, whether both have none, as in SQuAD 2."""
    one, other = Counter(words(told)), Counter(words(truth))
    if not one or not other:
        return float(one == other)
    return 2 * (one & other).total() / (one.total() + other.total())


class _Answers(MeanMetric):
    """Mean over questions of the best over the answers that would be right. update: texts, lists of texts."""

    higher_is_better = True

    @abstractmethod
    def measure(self, told: str, right: str) -> float: ...

    def update(self, preds: Sequence[str], target: Sequence[Sequence[str]]) -> None:  # type: ignore[override]
        best = [max(self.measure(told, one) for one in right) for told, right in zip(preds, target, strict=True)]
        super().update(torch.tensor(best))


class ExactMatch(_Answers, Configurable):
    """Fraction of the questions whose answer has the words of a right one, in their order.

    Args:
        normalize: "squad" ignores capitals, punctuation and articles, as SQuAD's script does; "casefold" ignores
            capitals alone, so that 1.5 is not 15, and "a" is an answer.
        **kwargs: Those of `torchmetrics.Metric`.

    Raises:
        ValueError: If `normalize` is something else.
    """

    def __init__(self, normalize: str = "squad", **kwargs: Any):
        super().__init__(**kwargs)
        if normalize not in NORMALIZE:
            raise ValueError(f"exact_match.normalize: got '{normalize}', wanted one of {', '.join(NORMALIZE)}")
        self.normalize = normalize

    def measure(self, told: str, right: str) -> float:
        if self.normalize == "casefold":
            return float(told.lower().split() == right.lower().split())
        return float(words(told) == words(right))


class AnswerF1(_Answers, Configurable):
    """F1 of an answer's words."""

    def measure(self, told: str, right: str) -> float:
        return overlap(told, right)
