"""Helpers for messages to the user, and log messages of a single process."""

import logging
import os
import re
import shlex
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import Any

logger = logging.getLogger("mm")
# Control characters, line separators, marks that reverse the direction of text, and bytes that are no UTF-8.
HIDDEN = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
MARKDOWN = re.compile(r"[\\`*\[<>|~#&]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")


def plain(text: Any, keep: str = "") -> str:
    """Escape the control characters of a text, so that a terminal shows them instead of interpreting them.

    Args:
        text: A name from the data, a path or a message.
        keep: Control characters that are not escaped, such as line breaks.

    Returns:
        The text on one line (unless line breaks are kept), with escapes such as `\\x1b` and `\\n`.
    """
    return HIDDEN.sub(lambda found: found[0] if found[0] in keep else repr(found[0])[1:-1], str(text))


def quote(word: str) -> str:
    """Quote a word of a shell command, so that it can be pasted into a shell.

    Args:
        word: An argument of the command.

    Returns:
        The result of `shlex.quote`, or, for control characters, `$'...'`, which bash, zsh and ksh support.
    """
    if not HIDDEN.search(word):
        return shlex.quote(word)

    def escaped(letter: str) -> str:
        if HIDDEN.match(letter):
            escape = "surrogateescape" if "\udc80" <= letter <= "\udcff" else "surrogatepass"
            return "".join(f"\\x{byte:02x}" for byte in letter.encode("utf-8", escape))
        return f"\\{letter}" if letter in "'\\" else letter

    return f"$'{''.join(map(escaped, word))}'"


def command(*words: str) -> str:
    """Join the words of a shell command, each quoted."""
    return " ".join(map(quote, words))


def markdown(text: Any) -> str:
    """Escape a text for a line or table cell of Markdown, so that it appears unchanged."""
    return MARKDOWN.sub(r"\\\g<0>", plain(text))


def near(name: str, names: Iterable[str], most: int = 1, cutoff: float = 0.6) -> str:
    """Return a suggestion of the most similar names, such as "; did you mean 'text'?", or "" if none is similar.

    Args:
        name: The name that was not found; its case is ignored.
        names: The known names.
        most: Maximum number of suggestions.
        cutoff: Minimum similarity in 0..1, see `difflib.get_close_matches`.
    """
    folded = {other.casefold(): other for other in names}
    found = [f"'{plain(folded[x])}'" for x in get_close_matches(name.casefold(), folded, n=most, cutoff=cutoff)]
    return f"; did you mean {' or '.join(found)}?" if found else ""


def listing(names: Sequence[str], most: int = 12, longest: int = 40) -> str:
    """Join names, at most `most` of them, and shorten names of more than `longest` characters."""
    short = [name if len(name) <= longest else name[: longest - 3] + "..." for name in map(plain, names[:most])]
    return ", ".join(short) + (f" and {len(names) - most} more" if len(names) > most else "")


def environment_number(name: str, default: int = 0) -> int:
    """Return an integer from an environment variable.

    Args:
        name: Name of the variable.
        default: Value if the variable is not set or empty.

    Returns:
        The integer.

    Raises:
        ValueError: If the variable has another value.
    """
    text = os.environ.get(name, "").strip()
    if not text:
        return default
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"environment variable {name}: got '{text}', wanted a whole number; unset it") from None


def is_first_process() -> bool:
    """Return whether this process has rank 0, so that it may write and print."""
    return all(environment_number(name) == 0 for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID"))


def say(text: str) -> None:
    """Log a text at level INFO, in rank 0 only. The command line prints it; from Python, `logging` decides."""
    if is_first_process():
        logger.info(plain(text, keep="\n"))
