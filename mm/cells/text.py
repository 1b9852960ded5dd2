"""The text of a cell of a table."""

import math
from collections.abc import Sequence
from typing import Any
from unicodedata import normalize

import numpy as np

from mm.text_column import TextColumn


def text_of(cell: Any) -> str:
    """A cell as text; "" where it is empty. Whole floats lose their `.0`, as integers with gaps come as floats."""
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return ""
    if isinstance(cell, list | tuple):
        return "|".join(map(text_of, cell))
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    return str(cell).strip()


def label_of(cell: Any) -> str:
    """Return a cell as the name of a class, an id or a group: its text in Unicode's composed form (NFC).

    The composed and the decomposed spelling of an accent look alike, and editors and file systems mix them.
    """
    return normalize("NFC", text_of(cell))


def distinct(cells: Sequence[Any]) -> tuple[list[str], np.ndarray]:
    """Return the different labels of a column, and each row's index into them (N,)."""
    raw, index = cells.distinct() if isinstance(cells, TextColumn) else distinct_texts(cells)
    places: dict[str, int] = {}
    merged = np.array([places.setdefault(label_of(cell), len(places)) for cell in raw], dtype=np.int64)
    return list(places), merged[index]


def distinct_texts(cells: Sequence[Any]) -> tuple[list[str], np.ndarray]:
    """Return the different texts of a list of cells, and each row's index into them (N,)."""
    places: dict[str, int] = {}
    index = np.fromiter((places.setdefault(text_of(cell), len(places)) for cell in cells), np.int64, len(cells))
    return list(places), index


def undecodable(text: str) -> bool:
    """Whether bytes that are no UTF-8 were read as lone surrogates."""
    return not text.isascii() and any("\ud800" <= letter <= "\udfff" for letter in text)


def text_fault(text: str) -> str | None:
    """Return what is wrong with the characters of a text, and the fix; None where nothing is.

    Wrong are bytes that are no UTF-8, which were read as lone surrogates (PEP 383), the lone surrogates that JSON can
    spell, and NUL characters.
    """
    if "\0" in text:
        byte = len(text[: text.index("\0")].encode("utf-8", "surrogatepass")) + 1
        return f"byte {byte} of the cell is NUL, which no text holds: the file is damaged, or no text file"
    if not undecodable(text):
        return None
    place = next(i for i, letter in enumerate(text) if "\ud800" <= letter <= "\udfff")
    code, before = ord(text[place]), text[:place]
    if not 0xDC80 <= code <= 0xDCFF:
        return f"the text holds \\u{code:04x}, one half of a surrogate pair, which is no character; write both or none"
    after = f", after '{before[-20:]}'" if before else ""
    fix = "save the file as UTF-8, for example iconv -f latin1 -t utf-8 OLD > NEW"
    return f"not valid UTF-8: byte {len(before.encode()) + 1} of the cell is 0x{code - 0xDC00:02x}{after}; {fix}"
