"""Format names from the data as labels of a figure: on one line, truncated, never as mathematics."""

from collections.abc import Sequence
from typing import Any

LONGEST = 40  # maximum number of characters of a label
LABELS_UP_TO = 200  # maximum number of labels; more would be smaller than a pixel
INCHES = 20.0  # maximum height or width of a figure


def inches(around: float, each: float, count: int) -> float:
    """Return the height or width of a figure in inches: `around` + `each` * `count`, but at most 20.

    Args:
        around: Inches for the margins.
        each: Inches per class.
        count: Number of classes.
    """
    return min(INCHES, around + each * count)


def short(name: str) -> str:
    """Return a name on one line, truncated to 40 characters, with control characters made visible."""
    visible = "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in name)
    return visible if len(visible) <= LONGEST else f"{visible[: LONGEST - 1]}…"


def set_ticks(axis: Any, names: Sequence[str], **font: Any) -> None:
    """Label the ticks of an axis with names, without interpreting text between two dollar signs as mathematics.

    Above 200 names, the axis has no ticks.

    Args:
        axis: A matplotlib axis, such as `axes.xaxis`.
        names: One name for each tick at 0, 1, 2, ...
        **font: Properties of the labels, such as `fontsize`.
    """
    if len(names) > LABELS_UP_TO:
        axis.set_ticks([])
        return
    axis.set_ticks(range(len(names)), [short(name) for name in names], parse_math=False, **font)
