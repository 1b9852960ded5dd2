"""Labels of classes: their spellings, their numbers and their order."""

import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from math import isfinite
from unicodedata import category, normalize

from mm.cells.text import text_fault
from mm.messages import listing, near

MOST_DUPLICATES = 10  # lines about probable duplicates
INTEGER = re.compile(r"0|-?[1-9][0-9]*")
NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")


class ClassIndex(dict[str, int]):
    """The number of each class by its name, which is also found by other spellings of the name.

    Found are the composed (NFC) spelling of a class whose name is decomposed, as of models that were trained before
    names were normalised, and, where all classes are numbers, another form of an integer: 1, 1.0 and 1e0.
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
        """Return the number of a class by any of its spellings; None for the name of no class."""
        found = self.get(name)
        if found is None:
            found = self.spellings.get(normalize("NFC", name))
        if found is None and self.numeric and is_numeric(name):
            found = self.spellings.get(as_integer(name))
        return found


def class_number(name: str, index: ClassIndex, of: str) -> int:
    """Errors: ValueError for a name that is none of them."""
    fault = text_fault(name)
    if fault is not None:
        raise ValueError(fault)
    found = index.place(name)
    if found is None:
        raise ValueError(f"unknown label '{name}'; {of} {listing(list(index))}{near(name, index)}")
    return found


def is_numeric(name: str) -> bool:
    """Return whether a label is a number as a program writes it: zip codes such as 01, and +1, are names."""
    return NUMBER.fullmatch(name) is not None


def as_integer(name: str) -> str:
    """Return the integer that a number is, such as 1 for 1.0 and 1e0; other numbers as they are."""
    value = float(name)
    return str(int(value)) if abs(value) < 2**53 and value.is_integer() else name  # beyond, float loses digits


def one_form(names: Iterable[str]) -> dict[str, str]:
    """Return each label in the form in which all of them are written.

    Where all labels are numbers, and integers are written in several forms (0 in one file, 0.0 in another), they are
    written as integers; else labels stay as they are.
    """
    names = list(names)
    if not all(map(is_numeric, names)):
        return dict(zip(names, names))
    plain = [as_integer(name) for name in names]
    whole = [(name, one) for name, one in zip(names, plain) if INTEGER.fullmatch(one)]
    mixed = any(name == one for name, one in whole) and any(name != one for name, one in whole)
    return dict(zip(names, plain if mixed or len(set(plain)) < len(plain) else names))


def probable_duplicates(counts: Mapping[str, int]) -> list[str]:
    """Return a line for each group of classes whose names differ only in case, width, blanks or form of a number.

    Args:
        counts: The number of training rows of each class.
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
    """Return what probable duplicates of a name have in common."""
    text = normalize("NFKC", name).casefold()
    if not text.isascii():  # such as a zero-width blank
        text = "".join(letter for letter in normalize("NFKC", text) if category(letter) != "Cf")
    text = " ".join(text.split())
    with suppress(ValueError):
        value = float(text)
        return f"number {value}" if isfinite(value) else text
    return text


def sort_classes(labels: set[str]) -> list[str]:
    """Return labels in order: by number where all of them are finite numbers, else by text."""
    found = sorted(labels)
    with suppress(ValueError):
        if all(isfinite(float(label)) for label in found):
            return sorted(found, key=float)
    return found
