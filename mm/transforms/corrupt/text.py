"""Corruptions of a text before it is converted to tokens.

A severity of 0 leaves the text unchanged, and 1 is the strongest corruption. Random numbers come from `rng`; with the
same generator, the words and letters that are selected at a low severity are also selected at a higher one.
"""

from dataclasses import dataclass

import numpy as np

from mm.transforms.corrupt.settings import check_range

KEYS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
# Rows of keys are offset by half a key: row offset -> index offsets of the keys in that row that touch a key.
SHIFT = {-1: (0, 1), 0: (-1, 1), 1: (-1, 0)}
NEAR = {
    key: [KEYS[r + d][i + s] for d in SHIFT if 0 <= r + d < 3 for s in SHIFT[d] if 0 <= i + s < len(KEYS[r + d])]
    for r, row in enumerate(KEYS)
    for i, key in enumerate(row)
}


@dataclass(frozen=True)
class Typos:
    """Replace each letter or digit by a typing error with probability severity * `fraction`.

    The character is replaced by a neighbouring key of a QWERTY keyboard, left out, doubled, or swapped with the
    character before it (Belinkov and Bisk 2018). A character that has no letter key is doubled instead of replaced. A
    text never becomes empty.

    Args:
        fraction: Probability at severity 1.
    """

    fraction: float = 0.5

    def __post_init__(self) -> None:
        check_range(self, 0, 1, fraction=self.fraction)

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
    """Remove each word with probability severity * `fraction`; at least one word is kept.

    Args:
        fraction: Probability at severity 1.
    """

    fraction: float = 1.0

    def __post_init__(self) -> None:
        check_range(self, 0, 1, fraction=self.fraction)

    def __call__(self, text: str, severity: float, rng: np.random.Generator) -> str:
        words = text.split()
        lot = rng.random(len(words))
        kept = [word for word, x in zip(words, lot, strict=True) if x >= severity * self.fraction]
        return text if len(kept) == len(words) else " ".join(kept or [words[int(lot.argmax())]])


@dataclass(frozen=True)
class WordSwap:
    """Select each word with probability severity * `fraction`, and shuffle the selected words among their positions.

    Args:
        fraction: Probability at severity 1.
    """

    fraction: float = 1.0

    def __post_init__(self) -> None:
        check_range(self, 0, 1, fraction=self.fraction)

    def __call__(self, text: str, severity: float, rng: np.random.Generator) -> str:
        words = np.array(text.split(), dtype=object)
        moved = np.flatnonzero(rng.random(len(words)) < severity * self.fraction)
        words[moved] = words[rng.permutation(moved)]
        return " ".join(words) if len(moved) > 1 else text
