"""Words that errors of several rooms end with."""

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
