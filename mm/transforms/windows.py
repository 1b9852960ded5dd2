"""What happens to a text or a sound that is longer than its encoder can read."""

from torch import Tensor

from mm.types import EncodedInput

OVERFLOW = ("truncate", "truncate_left", "error", "window")


def check_limit(max_length: int | None, overflow: str, window_overlap: float, extra: int = 0) -> str:
    """Return `overflow`; raise a ValueError where the settings do not go together.

    Args:
        max_length: As in `limit`, as are the others.
    """
    if overflow not in OVERFLOW:
        raise ValueError(f"overflow: got '{overflow}', wanted one of {', '.join(OVERFLOW)}")
    if not 0 <= window_overlap < 1:
        raise ValueError(f"window_overlap: got {window_overlap}, wanted a part of a window, from 0 to below 1")
    if max_length is not None and max_length <= extra:
        special = f" ({extra} are special tokens)" if extra else ""
        raise ValueError(f"max_length: got {max_length}, wanted at least {extra + 1}{special}, or null for no limit")
    return overflow


def check_multiple(pad_multiple: int) -> int:
    """Errors: ValueError where it is none."""
    if pad_multiple < 1:
        raise ValueError(f"pad_multiple: got {pad_multiple}, wanted at least 1")
    return pad_multiple


def room(
    count: int, max_length: int | None, overflow: str, window_overlap: float, multiple: int, extra: int = 0
) -> int:
    """What a length takes in a batch: each of the windows that `limit` makes of it, padded to whole multiples."""
    kept = count if max_length is None else min(count, max_length)
    windows = 1
    if kept < count and overflow == "window":
        windows = len(starts(count - extra, kept - extra, window_overlap))
    return windows * -(-kept // multiple) * multiple


def starts(count: int, length: int, window_overlap: float) -> list[int]:
    """Where the windows of a longer sequence start. All are of one length: the last ends where the sequence ends.

    A window of the few steps that are left over would count as much as a whole one.
    """
    step = max(1, round(length * (1 - window_overlap)))
    return [*range(0, count - length, step), count - length]


def limit(
    x: Tensor, max_length: int | None, overflow: str, window_overlap: float, unit: str, extra: int = 0
) -> EncodedInput:
    """Truncate a sequence (T,), raise an error, or split it into windows of at most (max_length - extra,).

    Args:
        x: The sequence.
        max_length: Maximum length of a window; None: no limit.
        overflow: `truncate` keeps the start, `truncate_left` the end; `error`; or `window`.
        window_overlap: Fraction of a window that the next window repeats.
        unit: Unit of the length, for messages.
        extra: Number of tokens that are added to each window afterwards.

    Raises:
        ValueError: If the sequence is too long and `overflow` is `error`.
    """
    if max_length is None or len(x) + extra <= max_length:
        return EncodedInput([x], False)
    if overflow == "error":
        raise ValueError(
            f"{len(x) + extra} {unit} are too long, at most {max_length} are read; set overflow to truncate or window"
        )
    length = max_length - extra
    if overflow == "truncate":
        return EncodedInput([x[:length]], True)
    if overflow == "truncate_left":
        return EncodedInput([x[-length:]], True)
    return EncodedInput([x[s : s + length] for s in starts(len(x), length, window_overlap)], False)
