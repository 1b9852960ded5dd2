"""What is said, letter by letter or word by word."""

from collections.abc import Sequence
from typing import Any
from unicodedata import normalize

import numpy as np
import torch
from torch import Tensor

from mm.cells import text_fault, text_of
from mm.cells.classes import ClassIndex, class_number
from mm.configurable import Configurable
from mm.targets.base import TargetTruncatedError
from mm.types import IGNORE, EncodedInput, EncodedTarget, TargetData

UNITS = {"characters": "", "words": " "}  # what stands between them


class TranscriptTarget(Configurable):
    """Encode a transcript as its characters, blanks among them, or its words; the classes are those of training rows.

    Args:
        input: Name of the input that the transcript belongs to, such as "audio".
        units: "characters" or "words".

    Raises:
        ValueError: If `units` is something else.
    """

    kind = "spelling"
    needs = None
    texts = ("la", "la", "la", "la", "la")
    examples = ("a", "b", "b", "a", "c")

    def __init__(self, input: str, units: str = "characters"):
        if units not in UNITS:
            raise ValueError(f"target_codec.units: got '{units}', wanted one of {', '.join(UNITS)}")
        self.input = input
        self.units = units

    def apart(self, text: str) -> list[str]:
        """Its characters or words; runs of blanks count for one."""
        words = text.split()
        return words if self.units == "words" else list(" ".join(words))

    def spelled(self, cell: Any, known: set[str] | None) -> list[str]:
        """Return the characters or words of a cell in the composed form (NFC).

        Args:
            cell: The cell.
            known: The characters or words of a trained model. One that was trained before texts were normalised may
                know a letter in its decomposed form alone, in which the cell is then read.
        """
        text = text_of(cell)
        forms = [self.apart(form) for form in (normalize("NFC", text), text, normalize("NFD", text))]
        return forms[0] if known is None else next((form for form in forms if known.issuperset(form)), forms[0])

    def fit(self, cells: Sequence[Any], train: np.ndarray, known: TargetData | None) -> EncodedTarget:
        """-> of every row (units,) int64; one IGNORE where unlabelled"""
        units = None if known is None else set(known.classes)
        rows = [self.spelled(cell, units) for cell in cells]
        if known is None:
            found = {unit for row in np.flatnonzero(train) for unit in rows[row] if text_fault(unit) is None}
            classes, of = sorted(found), "training rows have"
        else:
            classes, of = list(known.classes), "the model knows"
        index = ClassIndex(classes)
        values, faults = [], {}
        for row, own in enumerate(rows):
            try:
                numbers = [class_number(unit, index, of) for unit in own]
            except ValueError as error:
                numbers, faults[row] = [], str(error)
            values.append(torch.tensor(numbers or [IGNORE]))
        facts = {"input": self.input, "separator": UNITS[self.units]}
        return EncodedTarget(values, TargetData(kind=self.kind, classes=tuple(classes), facts=facts), faults)

    def align(self, target: Tensor, read: EncodedInput) -> list[Tensor]:
        """Return the target as it is; raise TargetTruncatedError where only a part of the sound is read."""
        if (len(read.windows) > 1 or read.cut) and not (target == IGNORE).all():
            raise TargetTruncatedError(
                "is longer than what is read at once, and where its words are nobody knows; raise max_length of "
                f"datamodule.transforms.{self.input}, or leave it out"
            )
        return [target]

    def strata(self, cell: Any) -> None:
        return None

    def decode(self, target: Tensor, data: TargetData) -> str | None:
        if (target == IGNORE).all():
            return None
        return UNITS[self.units].join(data.classes[int(unit)] for unit in target)
