"""What was perhaps meant."""

from collections.abc import Iterable
from difflib import get_close_matches


def near(name: str, names: Iterable[str], most: int = 1, cutoff: float = 0.6) -> str:
    """The nearest valid names, for the end of a message; nothing where none is near."""
    found = get_close_matches(name, list(names), n=most, cutoff=cutoff)
    return "; did you mean " + " or ".join(f"'{x}'" for x in found) + "?" if found else ""
