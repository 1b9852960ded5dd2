"""What happens to a text or a sound that is longer than its encoder can read."""

from torch import Tensor

from mm.types import Read

TOO_LONG = ("truncate", "refuse", "window")


def check_too_long(too_long: str) -> str:
    """Errors: ValueError where it is none of the three."""
    if too_long not in TOO_LONG:
        raise ValueError(f"too_long: got '{too_long}', wanted one of {', '.join(TOO_LONG)}")
    return too_long


def limit(x: Tensor, max_length: int | None, too_long: str, overlap: float, unit: str) -> Read:
    """Cut, refuse or window a sequence. (T,) -> windows of at most (max_length,)

    overlap: part of a window that the next one repeats. Errors: ValueError where it is refused.
    """
    if max_length is None or len(x) <= max_length:
        return Read([x], False)
    if too_long == "refuse":
        raise ValueError(f"{len(x)} {unit} are too long, at most {max_length} are read; set too_long to truncate or window")
    if too_long == "truncate":
        return Read([x[:max_length]], True)
    step = max(1, round(max_length * (1 - overlap)))
    starts = range(0, max(1, len(x) - max_length + step), step)
    return Read([x[s : s + max_length] for s in starts], False)
