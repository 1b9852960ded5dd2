"""What heads share that predict one text a row: how probable it is, and whether it is right.

The probability of a text is kept as its logarithm: that of 600 tokens, each of 0.84, is below what float32 can hold.
"""

from collections.abc import Callable, Sequence
from math import exp, expm1, log, log1p
from typing import Any

from mm.types import SUREST


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
    """Return log(p / (1 - p)) of log p, exact for tiny p; p counts as at most SUREST."""
    bounded = min(log_probability, log(SUREST))
    return bounded - log(-expm1(bounded))


def judge_texts(said: Sequence[dict[str, Any]], truth: Sequence[str]) -> tuple[list[float], list[bool]]:
    """As Judged.judge: a text is right where no letter differs."""
    odds = [text_log_odds(row["log_probability"]) for row in said]
    return odds, [row["prediction"] == text for row, text in zip(said, truth)]


def revise_text(row: dict[str, Any], revise: Callable[[float], float]) -> dict[str, Any]:
    """As Judged.revised; both numbers are then of the whole text: that it is right."""
    odds = revise(text_log_odds(row["log_probability"]))
    revised = -log1p(exp(-odds)) if odds > 0 else odds - log1p(exp(odds))
    return row | {"probability": exp(revised), "log_probability": revised}
