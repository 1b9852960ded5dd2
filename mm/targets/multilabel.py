"""Target codec for multi-label classification: any number of labels per row."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mm.cells import label_of
from mm.cells.classes import ClassIndex, class_number
from mm.configurable import Configurable
from mm.targets.classes import class_target_data, known_classes
from mm.types import IGNORE, EncodedTarget, TargetData


class MultilabelTarget(Configurable):
    """Encode the labels of a row as a vector with 1 for each label of the row and 0 for the others.

    A cell is a text of labels with a separator between them, or a list of labels. A row with an empty cell is
    unlabelled. A cell that contains only a separator, or an empty list, means that the row has none of the labels.

    Args:
        separator: Text between two labels of a cell.
        empty_value: Another text of a cell that marks an unlabelled row, such as "(no genres listed)".

    Raises:
        ValueError: If the separator is empty.
    """

    kind = "labels"
    examples = ("zero|one", "one", "|", "two|zero", "two", "one|two")

    def __init__(self, separator: str = "|", empty_value: str | None = None):
        if not separator:
            raise ValueError(
                "target_codec.separator: got an empty text, wanted what stands between labels, such as '|'"
            )
        self.separator = separator
        self.empty_value = None if empty_value is None else label_of(empty_value)

    def fit(self, cells: Sequence[Any], train: np.ndarray, known: TargetData | None) -> EncodedTarget:
        """Encode the cells of all rows; the values are (N, C) int64: 1 if the row has the label, else 0.

        All values of an unlabelled row are IGNORE.

        Args:
            cells: Cells of all rows, (N,).
            train: Whether each row is a training row, (N,) bool; labels and counts are those of the training rows.
            known: Target data of a trained model, whose labels are used instead; None: there is no such model.

        Raises:
            ValueError: If the training rows have fewer than two labels, or labels that look like measurements or dates.
        """
        rows = [self.names(cell) for cell in cells]
        classes, of = known_classes(known, [rows[row] or [] for row in np.flatnonzero(train)])
        if known is None and len(classes) < 2:
            got = f"one label, '{classes[0]}'," if classes else "no label"
            raise ValueError(
                f"got {got} in all training rows, wanted two or more labels. If a cell holds several labels, set "
                "target_codec.separator to the character between them; if there is one label only, choose "
                "model/heads=classification and give the other rows a class of their own"
            )
        index = ClassIndex(classes)
        targets, faults = torch.full((len(rows), len(classes)), IGNORE), {}
        for row, names in enumerate(rows):
            try:
                if names is not None:
                    chosen = [class_number(name, index, of) for name in names]
                    targets[row] = 0
                    targets[row, chosen] = 1
            except ValueError as error:
                faults[row] = str(error)
        own = targets[torch.from_numpy(train)]
        data = class_target_data(self.kind, classes, (own == 1).sum(0))
        data.facts["rows"] = int((own != IGNORE).any(1).sum())
        return EncodedTarget(targets, data, faults)

    def names(self, cell: Any) -> list[str] | None:
        """Return the labels of a cell, or None if the cell is empty or equal to `empty_value`."""
        if isinstance(cell, list | tuple):
            return [label_of(name) for name in cell if label_of(name)]
        text = label_of(cell)
        if text in ("", self.empty_value):
            return None
        return [name.strip() for name in text.split(self.separator) if name.strip()]

    def strata(self, cell: Any) -> list[str]:
        return self.names(cell) or []

    def decode(self, target: Tensor, data: TargetData) -> list[str] | None:
        on = target.tolist()
        return None if min(on) < 0 else [name for name, yes in zip(data.classes, on, strict=True) if yes]
