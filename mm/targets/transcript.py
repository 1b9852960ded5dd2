"""Target codec for speech recognition: a transcript as characters or words."""

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

UNITS = {"characters": "", "words": " "}  # separator between two units


class TranscriptTarget(Configurable):
    """Encode a transcript as a sequence of its characters (including blanks) or of its words.

    The classes are the characters or words of the training rows, or those of a trained model.

    Args:
        input: Name of the input that is transcribed, such as "audio".
        units: "characters" or "words".

    Raises:
        ValueError: If `units` is unknown.
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
        """Return the characters or the words of a text; consecutive blanks count as one."""
        words = text.split()
        return words if self.units == "words" else list(" ".join(words))

    def spelled(self, cell: Any, known: set[str] | None) -> list[str]:
        """Return the characters or words of a cell in the composed Unicode form (NFC).

        Args:
            cell: The cell.
            known: The characters or words of a trained model; None: there is no trained model. A model that was trained
                before texts were normalised may know a letter only in another Unicode form. The cell is then returned
                in the first of the composed, the original and the decomposed form whose units are all known.
        """
        text = text_of(cell)
        forms = [self.apart(form) for form in (normalize("NFC", text), text, normalize("NFD", text))]
        return forms[0] if known is None else next((form for form in forms if known.issuperset(form)), forms[0])

    def fit(self, cells: Sequence[Any], train: np.ndarray, known: TargetData | None) -> EncodedTarget:
        """Encode the cells of all rows; the values are one tensor (units,) int64 of class indices per row.

        An unlabelled row has a single IGNORE.

        Args:
            cells: Cells of all rows, (N,).
            train: Whether each row is a training row, (N,) bool; the classes are those of the training rows.
            known: Target data of a trained model, whose classes are used instead; None: there is no such model.
        """
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
        """Return the target unchanged, as the target of the only window.

        Raises:
            TargetTruncatedError: If a labelled input was truncated or split into windows.
        """
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
