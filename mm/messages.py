"""What rooms tell a person: the ends of errors, and notes that one process of several prints."""

import os
from collections.abc import Iterable, Sequence
from difflib import get_close_matches


def near(name: str, names: Iterable[str], most: int = 1, cutoff: float = 0.6) -> str:
    """What was perhaps meant, whatever its capitals; nothing where no name is near."""
    folded = {other.casefold(): other for other in names}
    found = [f"'{folded[x]}'" for x in get_close_matches(name.casefold(), folded, n=most, cutoff=cutoff)]
    return f"; did you mean {' or '.join(found)}?" if found else ""


def listing(names: Sequence[str], most: int = 12, longest: int = 40) -> str:
    """Names, not too many and not too long."""
    short = [name if len(name) <= longest else name[: longest - 3] + "..." for name in names[:most]]
    return ", ".join(short) + (f" and {len(names) - most} more" if len(names) > most else "")


def environment_number(name: str, default: int = 0) -> int:
    """A whole number from an environment variable.

    Args:
        name: The variable's name.
        default: The number of a variable that is not set, or is set to nothing.

    Returns:
        The number.

    Raises:
        ValueError: The variable holds something else.
    """
    text = os.environ.get(name, "").strip()
    if not text:
        return default
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"environment variable {name}: got '{text}', wanted a whole number; unset it") from None


def is_first_process() -> bool:
    """Whether this process is the one that writes: the others were started by it, or beside it by a launcher."""
    return all(environment_number(name) == 0 for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID"))


def say(text: str) -> None:
    """Print it, in the first process alone."""
    if is_first_process():
        print(text)
