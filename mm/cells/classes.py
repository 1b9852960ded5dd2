"""Class names: their spellings, indices and order."""

import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from math import isfinite
from unicodedata import category, normalize

from mm.cells.text import text_fault
from mm.messages import listing, near

MOST_DUPLICATES = 10  # maximum number of lines about probable duplicates
INTEGER = re.compile(r"0|-?[1-9][0-9]*")
NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")


class ClassIndex(dict[str, int]):
    """Dictionary from class name to class index, in which `place` also finds other spellings of a name.

    Other spellings are the composed form (NFC) of a class whose name is decomposed, as in models that were trained
    before names were normalised; and, if all classes are numbers, other forms of an integer: 1, 1.0 and 1e0.

    Args:
        classes: Class names, in order.
        first: Index of the first class.
    """

    def __init__(self, classes: Sequence[str], first: int = 0):
        super().__init__((name, i) for i, name in enumerate(classes, first))
        self.spellings: dict[str, int] = {}
        for name, i in self.items():
            self.spellings.setdefault(normalize("NFC", name), i)
        self.numeric = all(map(is_numeric, classes))
        if self.numeric:
            for name, i in self.items():
                self.spellings.setdefault(as_integer(name), i)

    def place(self, name: str) -> int | None:
        """Return the index of a class by any spelling of its name, or None if the name is unknown."""
        found = self.get(name)
        if found is None:
            found = self.spellings.get(normalize("NFC", name))
        if found is None and self.numeric and is_numeric(name):
            found = self.spellings.get(as_integer(name))
        return found


def class_number(name: str, index: ClassIndex, of: str) -> int:
    """Return the index of a class.

    Args:
        name: Name of the class.
        index: Class indices by name.
        of: Words before the list of known classes in the error message, such as "the model knows".

    Raises:
        ValueError: If the name is unknown or is not valid text.
    """
    fault = text_fault(name)
    if fault is not None:
        raise ValueError(fault)
    found = index.place(name)
    if found is None:
        raise ValueError(f"unknown label '{name}'; {of} {listing(list(index))}{near(name, index)}")
    return found


def is_numeric(name: str) -> bool:
    """Return whether a label is a number as programs write it; labels such as 01 (of a zip code) and +1 are names."""
    return NUMBER.fullmatch(name) is not None


def as_integer(name: str) -> str:
    """Return the integer form of a number, such as 1 for 1.0 and 1e0; numbers that are not integers stay unchanged."""
    value = float(name)
    return str(int(value)) if abs(value) < 2**53 and value.is_integer() else name  # larger floats lose digits


def one_form(names: Iterable[str]) -> dict[str, str]:
    """Return a mapping from each label to its common form.

    If all labels are numbers, and integers occur in several forms (0 in one file, 0.0 in another), the common form is
    that of an integer. Otherwise labels stay unchanged.
    """
    names = list(names)
    if not all(map(is_numeric, names)):
        return dict(zip(names, names))
    plain = [as_integer(name) for name in names]
    whole = [(name, one) for name, one in zip(names, plain) if INTEGER.fullmatch(one)]
    mixed = any(name == one for name, one in whole) and any(name != one for name, one in whole)
    return dict(zip(names, plain if mixed or len(set(plain)) < len(plain) else names))


def probable_duplicates(counts: Mapping[str, int]) -> list[str]:
    """Return one line per group of classes whose names differ only in case, width, blanks or the form of a number.

    Args:
        counts: Class name to number of training rows.
    """
    groups: dict[str, list[str]] = {}
    for name in counts:
        groups.setdefault(fold(name), []).append(name)
    alike = [names for names in groups.values() if len(names) > 1]
    lines = []
    for names in alike[:MOST_DUPLICATES]:
        rows = ", ".join(f"{name!r} ({counts[name]} rows)" for name in names)
        lines.append(f"{rows} are {len(names)} classes; if they mean one, spell them alike")
    if len(alike) > MOST_DUPLICATES:
        lines.append(f"{len(alike) - MOST_DUPLICATES} more names of classes have several spellings")
    return lines


def fold(name: str) -> str:
    """Return a normalised form of a name that is equal for probable duplicates."""
    text = normalize("NFKC", name).casefold()
    if not text.isascii():  # such as a zero-width blank
        text = "".join(letter for letter in normalize("NFKC", text) if category(letter) != "Cf")
    text = " ".join(text.split())
    with suppress(ValueError):
        value = float(text)
        return f"number {value}" if isfinite(value) else text
    return text


def sort_classes(labels: set[str]) -> list[str]:
    """Return the labels sorted by value if all of them are finite numbers, else alphabetically."""
    found = sorted(labels)
    with suppress(ValueError):
        if all(isfinite(float(label)) for label in found):
            return sorted(found, key=float)
    return found
