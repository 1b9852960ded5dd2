"""Names from the data as labels of a figure: drawn as they are, and short."""

from collections.abc import Sequence
from typing import Any

LONGEST = 40  # letters of a label


def short(name: str) -> str:
    """A name on one line, truncated, with control characters made visible."""
    visible = "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in name)
    return visible if len(visible) <= LONGEST else f"{visible[: LONGEST - 1]}…"


def set_ticks(axis: Any, names: Sequence[str], **font: Any) -> None:
    """Label an axis with names; matplotlib would read text between two dollar signs as mathematics.

    Args:
        axis: A matplotlib axis, such as `axes.xaxis`.
        names: One for each tick at 0, 1, 2, ...
        **font: Properties of the labels, such as `fontsize`.
    """
    axis.set_ticks(range(len(names)), [short(name) for name in names], parse_math=False, **font)
