"""Conversion of cells to texts."""

import math
from collections.abc import Sequence
from typing import Any
from unicodedata import normalize

import numpy as np

from mm.text_column import TextColumn


def text_of(cell: Any) -> str:
    """Return a cell as text, which is "" if the cell is empty.

    Integers of type float lose their `.0`, because a column of integers with missing values is read as floats.
    Elements of lists are joined by "|".
    """
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return ""
    if isinstance(cell, list | tuple):
        return "|".join(map(text_of, cell))
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    return str(cell).strip()


def label_of(cell: Any) -> str:
    """Return a cell as a class name, an id or a group: its text in the composed Unicode form (NFC).

    The composed and the decomposed spelling of an accented letter look alike, and editors and file systems mix them.
    """
    return normalize("NFC", text_of(cell))


def distinct(cells: Sequence[Any]) -> tuple[list[str], np.ndarray]:
    """Return the different labels of a column, and the index of the label of each row, (N,)."""
    raw, index = cells.distinct() if isinstance(cells, TextColumn) else distinct_texts(cells)
    places: dict[str, int] = {}
    merged = np.array([places.setdefault(label_of(cell), len(places)) for cell in raw], dtype=np.int64)
    return list(places), merged[index]


def distinct_texts(cells: Sequence[Any]) -> tuple[list[str], np.ndarray]:
    """Return the different texts of a list of cells, and the index of the text of each row, (N,)."""
    places: dict[str, int] = {}
    index = np.fromiter((places.setdefault(text_of(cell), len(places)) for cell in cells), np.int64, len(cells))
    return list(places), index


def undecodable(text: str) -> bool:
    """Return whether a text contains lone surrogates, as which bytes that are not UTF-8 are decoded."""
    return not text.isascii() and any("\ud800" <= letter <= "\udfff" for letter in text)


def text_fault(text: str) -> str | None:
    """Return an error message and its remedy if a text contains invalid characters, else None.

    Invalid are bytes that are not UTF-8 and were decoded as lone surrogates (PEP 383), lone surrogates that were
    written in JSON, and NUL characters.
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
