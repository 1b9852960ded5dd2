"""What heads share that tell one text a row: how probable it is, and whether it is right."""

from collections.abc import Callable, Sequence
from typing import Any


def judge_texts(said: Sequence[dict[str, Any]], truth: Sequence[str]) -> tuple[list[float], list[bool]]:
    """As Judged.judge: a text is right where no letter differs."""
    return [row["probability"] for row in said], [row["prediction"] == text for row, text in zip(said, truth)]


def revise_text(row: dict[str, Any], revise: Callable[[float], float]) -> dict[str, Any]:
    """As Judged.revised."""
    return row | {"probability": revise(row["probability"])}
