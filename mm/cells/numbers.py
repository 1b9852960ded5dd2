"""Conversion of cells to numbers, and recognition of missing values, decimal commas, dates and units."""

import math
import re
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

# Spellings of a missing value in spreadsheets, R, pandas and SQL, and by people, in lower case.
MISSING = frozenset(
    (
        "na",
        "n/a",
        "#n/a",
        "#n/a n/a",
        "n.a.",
        "n/k",
        "nan",
        "-nan",
        "null",
        "none",
        "nil",
        "nothing",
        "missing",
        "unknown",
    )
) | frozenset(
    ("-", "--", "---", "?", ".", "*", "\\n", "#value!", "#ref!", "#div/0!", "#num!", "<na>", "-1.#ind", "1.#qnan")
)
INFINITE = frozenset(("inf", "+inf", "-inf", "infinity", "+infinity", "-infinity"))
COMMA = re.compile(r"[+-]?(\d+|\d{1,3}([. ']\d{3})+),\d+([eE][+-]?\d+)?")
GROUPED = re.compile(r"[+-]?\d{1,3}(,\d{3})+(\.\d+)?")
UNITS = r"%|‰|°|°C|°F|[$€£¥]|[kmµn]?g|[kcmµn]?m|[mµn]?s|min|h|[kMG]?Hz|[kMGT]?B|px|V|mV|W|kW|ml|l|km/h|m/s|bpm|years|y"
UNIT = re.compile(rf"[$€£¥]\s?[+-]?\d[\d.,]*|[+-]?\d[\d.,]*\s?({UNITS})")
DATE = re.compile(
    r"\d{4}[-/.]\d{1,2}[-/.]\d{1,2}([T ]\d{1,2}:\d{2}(:\d{2}([.,]\d+)?)?\s?(Z|UTC|[+-]\d{2}:?\d{2})?)?"
    r"|\d{1,2}[-/.]\d{1,2}[-/.](\d{4}|\d{2})([T ]\d{1,2}:\d{2}(:\d{2})?)?"
    r"|\d{1,2}:\d{2}(:\d{2}([.,]\d+)?)?"
)
HINTS = {
    "missing": "it is a usual spelling of a missing value: leave the cell empty",
    "infinite": "leave the cell empty, or write a number",
    "comma": "write a decimal point, not a comma",
    "grouped": "write thousands without commas, or a decimal point",
    "date": "it is a date or a time: write it as numbers, such as days since a date, or the year, the month, the hour",
    "unit": "write the number without its unit",
}
LARGEST = float(np.finfo(np.float32).max)
NUMBERLIKE = ("number", "missing", "infinite", "comma", "grouped", "unit")
MOST_OTHERS = 0.1  # maximum fraction of cells that are not numbers in a column of numbers; they are treated as mistakes


class Contents(NamedTuple):
    """Forms of the cells of a column."""

    counts: Counter[str]  # form (a key of HINTS, "number" or "other") to number of cells
    odd: list[str]  # different texts that are not numbers, sorted by descending frequency


def form_of(text: str) -> str:
    """Return the form of a text: a key of HINTS such as "missing" or "date", "number", or "other"."""
    lower = text.casefold()
    if lower in MISSING:
        return "missing"
    if lower in INFINITE:
        return "infinite"
    try:
        float(text)
    except ValueError:
        pass
    else:
        return "number"
    for form, pattern in (("grouped", GROUPED), ("comma", COMMA), ("date", DATE), ("unit", UNIT)):
        if pattern.fullmatch(text):
            return form
    return "other"


def number_hint(text: str) -> str:
    """Return advice to append to a message about a text that is not a number, or an empty string."""
    hint = HINTS.get(form_of(text))
    return f"; {hint}" if hint else ""


def read_contents(texts: Sequence[str], most_others: float = 1.0) -> Contents | None:
    """Count the cells of a column by their form.

    Args:
        texts: Cells that are not empty.
        most_others: Largest accepted fraction of cells with the form "other", that is, which are neither numbers (also
            with units or decimal commas) nor dates nor missing values.

    Returns:
        The counts, or None if the fraction of others is larger.
    """
    counts: Counter[str] = Counter()
    odd = []
    for text, count in Counter(texts).most_common():
        form = form_of(text)
        counts[form] += count
        if form != "number":
            odd.append(text)
        if counts["other"] > most_others * len(texts):
            return None
    return Contents(counts, odd)


def mean_and_std(values: np.ndarray) -> tuple[float, float]:
    """Return the mean and the standard deviation of numbers.

    The deviation of equal numbers is exactly 0, also if their mean is rounded.

    Args:
        values: At least one number, (N,) float64.
    """
    low, high = float(values.min()), float(values.max())
    return (low, 0.0) if low == high else (float(values.mean()), float(values.std()))


def value_of(text: str) -> float:
    """Return the number in the text of a cell, or NaN if the text is empty.

    Raises:
        ValueError: If the text is not a finite number.
    """
    try:
        value = float(text) if text else math.nan
    except ValueError:
        raise ValueError(f"got '{text}', wanted a number{number_hint(text)}") from None
    if text and not abs(value) <= LARGEST:  # also true for NaN
        raise ValueError(f"got '{text}', wanted a finite number{number_hint(text)}")
    return value
