"""A text that is generated token by token, and what all predictions of one text per row have in common.

The probability of a text is kept as its logarithm: that of 600 tokens of 0.84 each is below what float32 can hold.
"""

from collections.abc import Callable, Mapping, Sequence
from math import exp, expm1, log, log1p
from typing import Any, NamedTuple

from torch import Tensor

from mm.predictions.base import MAX_PROBABILITY, Decoding, Prediction
from mm.windows import first_windows, side_by_side


class WholeText(Prediction):
    """Base class of predictions of one text per row, which is right where no letter differs."""

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
        """Return the row with both numbers of the whole text: the probability that it is right."""
        odds = scale(text_log_odds(row["log_probability"]))
        scaled = -log1p(exp(-odds)) if odds > 0 else odds - log1p(exp(odds))
        return row | {"probability": exp(scaled), "log_probability": scaled}


class TextFields(NamedTuple):
    """The tensors of a Text: the logits of the next tokens, and what generation reads."""

    logits: Tensor  # (B, U, V) of each next token, after the begin and the tokens before
    memory: Tensor  # (B, T, D)
    mask: Tensor  # (B, T) bool


class Text(WholeText, TextFields):
    """The next tokens of a text (B, U, V), and the memory (B, T, D) from which its head generates the text.

    A target is (B, U) int64. The head overrides `decode`, as generation runs its decoder.
    """

    __slots__ = ()

    def merge(self, group: Tensor, count: int) -> "Text":
        """Put the memories of each row's windows side by side; the next tokens are those of the first window."""
        length = self.memory.shape[1]
        memory = side_by_side(self.memory, group, count, length, 0.0)
        mask = side_by_side(self.mask, group, count, length, 0)
        return Text(self.logits[first_windows(group, count)], memory, mask)

    def decode(self, decoding: Decoding, meta: Mapping[str, Tensor]) -> list[dict[str, Any]]:
        """Raise a ValueError: only the head can generate the text."""
        raise ValueError("a head that returns Text generates the text itself: its `decode` has to be overridden")

    def compare(
        self, rows: Sequence[dict[str, Any]], truth: Sequence[Any], decoding: Decoding
    ) -> tuple[list[str], list[list[str]]]:
        """Return the generated texts, and of each row the list of its one reference."""
        return [row["prediction"] for row in rows], [[text] for text in truth]


def text_row(text: str, log_probability: float, symbols: int) -> dict[str, Any]:
    """Return a decoded row.

    Args:
        text: The predicted text.
        log_probability: Logarithm of the probability of the whole text.
        symbols: How many symbols or tokens it has.

    Returns:
        {"prediction": text, "probability": that of a symbol, the geometric mean, "log_probability": of all together}
    """
    mean = exp(min(log_probability, 0.0) / max(symbols, 1))
    return {"prediction": text, "probability": mean, "log_probability": log_probability}


def text_log_odds(log_probability: float) -> float:
    """Return log(p / (1 - p)) of log p, exact for tiny p; p counts as at most MAX_PROBABILITY."""
    bounded = min(log_probability, log(MAX_PROBABILITY))
    return bounded - log(-expm1(bounded))
