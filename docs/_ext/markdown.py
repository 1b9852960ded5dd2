"""Pieces of Markdown that the generators share."""

import re
from collections.abc import Iterable, Sequence


def escape(text: str) -> str:
    """Escape what Markdown would interpret in plain text; code in backticks stays.

    >>> escape("a_b * `c_d` <e1>")
    'a\\\\_b \\\\* `c_d` &lt;e1>'
    """
    parts = re.split(r"(`+[^`]*`+)", text)
    parts[::2] = [re.sub(r"([*_\[\]|\\{}$#~])", r"\\\1", part).replace("<", "&lt;") for part in parts[::2]]
    return "".join(parts)


def code(text: str) -> str:
    """Return a text as inline code, also where it holds backticks or is empty."""
    return f"`` {text} ``" if "`" in text else f"`{text}`" if text else ""


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table; the cells are Markdown already."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines) + "\n"
