"""Handling of texts and audio clips that are longer than the maximum length of their encoder."""

from torch import Tensor

from mm.types import EncodedInput

OVERFLOW = ("truncate", "truncate_left", "error", "window")


def check_limit(max_length: int | None, overflow: str, window_overlap: float, extra: int = 0) -> str:
    """Return `overflow` after checking the settings of `limit`.

    Args:
        max_length: Maximum length of a window; None: no limit.
        overflow: `truncate`, `truncate_left`, `error` or `window`.
        window_overlap: Fraction of a window that the next window repeats.
        extra: Number of special tokens that are added to each window.

    Raises:
        ValueError: If `overflow` is unknown, if `window_overlap` is not in 0..1 (1 excluded), or if `max_length` leaves
            no room beside the special tokens.
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
    """Return `pad_multiple` after checking that it is at least 1.

    Raises:
        ValueError: If it is below 1.
    """
    if pad_multiple < 1:
        raise ValueError(f"pad_multiple: got {pad_multiple}, wanted at least 1")
    return pad_multiple


def room(
    count: int, max_length: int | None, overflow: str, window_overlap: float, multiple: int, extra: int = 0
) -> int:
    """Return the length that a sequence occupies in a batch: the sum of the padded lengths of its windows.

    Args:
        count: Length of the sequence, including special tokens.
        max_length: Maximum length of a window; None: no limit.
        overflow: `truncate`, `truncate_left`, `error` or `window`.
        window_overlap: Fraction of a window that the next window repeats.
        multiple: Each window is padded to a multiple of this length.
        extra: Number of special tokens that are added to each window.
    """
    kept = count if max_length is None else min(count, max_length)
    windows = 1
    if kept < count and overflow == "window":
        windows = len(starts(count - extra, kept - extra, window_overlap))
    return windows * -(-kept // multiple) * multiple


def starts(count: int, length: int, window_overlap: float) -> list[int]:
    """Return the start indices of the windows of a sequence that is longer than one window.

    All windows have the same length, so the last one ends at the end of the sequence. A shorter last window with the
    few remaining steps would have the same weight as a complete one.

    Args:
        count: Length of the sequence.
        length: Length of a window.
        window_overlap: Fraction of a window that the next window repeats.
    """
    step = max(1, round(length * (1 - window_overlap)))
    return [*range(0, count - length, step), count - length]


def limit(
    x: Tensor, max_length: int | None, overflow: str, window_overlap: float, unit: str, extra: int = 0
) -> EncodedInput:
    """Truncate a sequence (T,), or split it into windows of at most `max_length - extra`, if it is too long.

    Args:
        x: The sequence.
        max_length: Maximum length of a window; None: no limit.
        overflow: Handling of longer sequences: `truncate` keeps the start, `truncate_left` keeps the end, `error`
            raises an error, `window` splits the sequence into windows.
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
