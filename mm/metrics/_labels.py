"""Names from the data as labels of a figure: drawn as they are, and short."""

from collections.abc import Sequence
from typing import Any

LONGEST = 40  # letters of a label
LABELS_UP_TO = 200  # above it a label is smaller than a pixel
INCHES = 20.0  # of a figure at most, whatever the number of classes


def inches(around: float, each: float, count: int) -> float:
    """How high or wide a figure is: so much around it, and so much for each class, but never above 20 inches."""
    return min(INCHES, around + each * count)


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
    if len(names) > LABELS_UP_TO:
        axis.set_ticks([])
        return
    axis.set_ticks(range(len(names)), [short(name) for name in names], parse_math=False, **font)
