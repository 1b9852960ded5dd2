"""Corruptions of a text, before it becomes tokens.

Severity is 0 (the text as it is) to 1; what is random comes from `rng`: with the same one, words and letters that are
drawn at a low severity are drawn at a higher one as well.
"""

from dataclasses import dataclass

import numpy as np

from mm.transforms.corrupt.settings import check

KEYS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
SHIFT = {-1: (0, 1), 0: (-1, 1), 1: (-1, 0)}  # rows of keys stand half a key apart: which keys a row off touch one
NEAR = {
    key: [KEYS[r + d][i + s] for d in SHIFT if 0 <= r + d < 3 for s in SHIFT[d] if 0 <= i + s < len(KEYS[r + d])]
    for r, row in enumerate(KEYS)
    for i, key in enumerate(row)
}


@dataclass(frozen=True)
class Typos:
    """Mistype each letter with probability severity * `fraction`.

    The letter becomes a neighbouring key of QWERTY, or is left out, doubled, or swapped with the one before (Belinkov
    and Bisk 2018); a character that is on none of these keys is doubled. A text is never left empty.

    Args:
        fraction: Probability at severity 1.
    """

    fraction: float = 0.5

    def __post_init__(self) -> None:
        check(self, 0, 1, fraction=self.fraction)

    def __call__(self, text: str, severity: float, rng: np.random.Generator) -> str:
        lot, how, which = rng.random((3, len(text)))
        typed: list[str] = []
        for i in range(len(text)):
            letter = text[i]
            if lot[i] >= severity * self.fraction or not letter.isalnum():
                typed.append(letter)
                continue
            near = NEAR.get(letter.lower(), [])
            kind = int(4 * how[i])
            if kind == 0 and near:
                hit = near[int(len(near) * which[i])]
                typed.append(hit.upper() if letter.isupper() else hit)
            elif kind == 3:
                typed[-1:] = [letter, *typed[-1:]]
            elif kind != 1:
                typed += [letter, letter]
        new = "".join(typed)
        return new if new.strip() else text


@dataclass(frozen=True)
class WordDrop:
    """Leave out each word with probability severity * `fraction`; one word always stays.

    Args:
        fraction: Probability at severity 1.
    """

    fraction: float = 1.0

    def __post_init__(self) -> None:
        check(self, 0, 1, fraction=self.fraction)

    def __call__(self, text: str, severity: float, rng: np.random.Generator) -> str:
        words = text.split()
        lot = rng.random(len(words))
        kept = [word for word, x in zip(words, lot, strict=True) if x >= severity * self.fraction]
        return text if len(kept) == len(words) else " ".join(kept or [words[int(lot.argmax())]])


@dataclass(frozen=True)
class WordSwap:
    """Draw each word with probability severity * `fraction`; the words that are drawn change places at random.

    Args:
        fraction: Probability at severity 1.
    """

    fraction: float = 1.0

    def __post_init__(self) -> None:
        check(self, 0, 1, fraction=self.fraction)

    def __call__(self, text: str, severity: float, rng: np.random.Generator) -> str:
        words = np.array(text.split(), dtype=object)
        moved = np.flatnonzero(rng.random(len(words)) < severity * self.fraction)
        words[moved] = words[rng.permutation(moved)]
        return " ".join(words) if len(moved) > 1 else text
