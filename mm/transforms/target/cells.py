"""What a cell of a table says."""

import math
from typing import Any


def text_of(cell: Any) -> str:
    """A cell as text; "" where it is empty. Whole floats lose their `.0`, as integers with gaps come as floats."""
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return ""
    if isinstance(cell, list | tuple):
        return "|".join(map(text_of, cell))
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    return str(cell).strip()


def undecodable(text: str) -> bool:
    """Whether bytes that are no UTF-8 were read as lone surrogates."""
    return any("\ud800" <= letter <= "\udfff" for letter in text)
