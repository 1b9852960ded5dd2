"""Prediction of a text that is generated token by token, and the base class of predictions of one text per row.

The probability of a text is stored as its logarithm, because float32 underflows for long texts, for example for 600
tokens with a probability of 0.84 each.
"""

from collections.abc import Callable, Mapping, Sequence
from math import exp, expm1, log, log1p
from typing import Any, NamedTuple

from torch import Tensor

from mm.predictions.base import MAX_PROBABILITY, Decoding, Prediction
from mm.windows import first_windows, side_by_side


class WholeText(Prediction):
    """Base class of predictions of one text per row, which is right only if it equals the true text exactly."""

    __slots__ = ()
    calibration = "platt"
    compares_decoded = True

    def confidences(
        self, rows: Sequence[dict[str, Any]], truth: Sequence[Any], decoding: Decoding
    ) -> tuple[list[float], list[bool]]:
        odds = [text_log_odds(row["log_probability"]) for row in rows]
        return odds, [row["prediction"] == text for row, text in zip(rows, truth, strict=True)]

    def with_confidence(
        self, row: dict[str, Any], scale: Callable[[float], float], decoding: Decoding
    ) -> dict[str, Any]:
        """Return a decoded row whose probabilities are replaced by the calibrated one of the whole text."""
        odds = scale(text_log_odds(row["log_probability"]))
        scaled = -log1p(exp(-odds)) if odds > 0 else odds - log1p(exp(odds))
        return row | {"probability": exp(scaled), "log_probability": scaled}


class TextFields(NamedTuple):
    """Tensors of `Text`: the logits of the next tokens, and the memory from which texts are generated."""

    logits: Tensor  # (B, U, V) of each next token, given the begin token and the tokens before
    memory: Tensor  # (B, T, D)
    mask: Tensor  # (B, T) bool


class Text(WholeText, TextFields):
    """Logits (B, U, V) of the next tokens of a text, and the memory (B, T, D) from which the head generates the text.

    U is the number of target tokens and V the vocabulary size. A target is (B, U) int64. The head overrides `decode`,
    because generation runs its decoder.
    """

    __slots__ = ()

    def merge(self, group: Tensor, count: int) -> "Text":
        """Concatenate the memories of the windows of each row, and take the logits of the first window."""
        length = self.memory.shape[1]
        memory = side_by_side(self.memory, group, count, length, 0.0)
        mask = side_by_side(self.mask, group, count, length, 0)
        return Text(self.logits[first_windows(group, count)], memory, mask)

    def decode(self, decoding: Decoding, meta: Mapping[str, Tensor]) -> list[dict[str, Any]]:
        """Raise a ValueError, because only the head can generate the text."""
        raise ValueError("a head that returns Text generates the text itself: its `decode` has to be overridden")

    def compare(
        self, rows: Sequence[dict[str, Any]], truth: Sequence[Any], decoding: Decoding
    ) -> tuple[list[str], list[list[str]]]:
        """Return the generated texts, and for each row a list with its reference text."""
        return [row["prediction"] for row in rows], [[text] for text in truth]


def text_row(text: str, log_probability: float, symbols: int) -> dict[str, Any]:
    """Return the decoded row of a predicted text.

    Args:
        text: The predicted text.
        log_probability: Logarithm of the probability of the whole text.
        symbols: Number of symbols or tokens of the text.

    Returns:
        A dictionary with "prediction", the text; "probability", the geometric mean of the probabilities of its symbols;
        and "log_probability", the logarithm of the probability of the whole text.
    """
    mean = exp(min(log_probability, 0.0) / max(symbols, 1))
    return {"prediction": text, "probability": mean, "log_probability": log_probability}


def text_log_odds(log_probability: float) -> float:
    """Return log(p / (1 - p)) from log p, exactly even for tiny p; p is clamped to at most MAX_PROBABILITY."""
    bounded = min(log_probability, log(MAX_PROBABILITY))
    return bounded - log(-expm1(bounded))
