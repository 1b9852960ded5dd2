"""Objects of a picture, each a class and a box."""

import json
from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mm.cells import label_of, text_of
from mm.cells.classes import ClassIndex, class_number
from mm.configurable import Configurable
from mm.messages import say
from mm.targets.classes import known_classes
from mm.types import EncodedInput, EncodedTarget, TargetData

NOTHING = -1.0  # in place of a class: the picture has no object
WANTED = 'wanted a list of {"label": "cat", "box": [x0, y0, x1, y1]}, in pixels of the picture'
DEGENERATE_BOXES = ("error", "drop")


class BoxTarget(Configurable):
    """Encode the objects of a picture: a list of {label, box: [x0, y0, x1, y1]}, or its JSON text.

    Boxes are in pixels of the picture as its file has it, turned upright, from its top left corner. An empty list means
    that there is no object; an empty cell is unlabelled.

    Args:
        input: Name of the input that holds the pictures.
        degenerate_boxes: What is done about a box without width or height: "error" makes it a fault of its row, "drop"
            leaves out the box alone and reports how many.
        min_visibility: Part of a box's area that an augmented picture has to show; else its object is left out.

    Raises:
        ValueError: If an option is something else.
    """

    kind = "boxes"
    needs = ("vision", "return_original_size")
    texts: Sequence[str] = ()
    examples = (
        [{"label": "cat", "box": [0, 0, 40, 50]}, {"label": "dog", "box": [30, 10, 90, 50.5]}],
        '[{"label": "dog", "box": [10, 10, 30, 20]}]',
        [],
        [{"label": "cat", "box": [60, 20, 100, 50]}],
    )

    def __init__(self, input: str, degenerate_boxes: str = "error", min_visibility: float = 0.3):
        if degenerate_boxes not in DEGENERATE_BOXES:
            wanted = ", ".join(DEGENERATE_BOXES)
            raise ValueError(f"target_codec.degenerate_boxes: got '{degenerate_boxes}', wanted one of {wanted}")
        if not 0 <= min_visibility <= 1:
            raise ValueError(f"target_codec.min_visibility: got {min_visibility}, wanted a part of a box, from 0 to 1")
        self.input = input
        self.degenerate_boxes = degenerate_boxes
        self.min_visibility = min_visibility

    def fit(self, cells: Sequence[Any], train: np.ndarray, known: TargetData | None) -> EncodedTarget:
        """-> of every row (objects, 5) float32, class and x0, y0, x1, y1; one of NOTHING, or of NaN where unlabelled"""
        rows: list[list[tuple[str, list[float]]] | None] = []
        faults: dict[int, str] = {}
        dropped: list[int] = []
        for row, cell in enumerate(cells):
            try:
                objects = objects_of(cell)
                solid = None if objects is None else [one for one in objects if area(one[1]) > 0]
                if solid != objects:
                    self.refuse_flat(objects or [])
                    dropped += [row] * (len(objects or ()) - len(solid or ()))
                rows.append(solid)
            except ValueError as error:
                rows.append(None)
                faults[row] = str(error)
        if dropped:
            say(f"boxes without area left out: {len(dropped)}, in rows {', '.join(map(str, dict.fromkeys(dropped)))}")
        classes, of = known_classes(known, [[label for label, _ in rows[i] or ()] for i in np.flatnonzero(train)])
        index = ClassIndex(classes)
        values = []
        for row, objects in enumerate(rows):
            try:
                values.append(coded(objects, index, of))
            except ValueError as error:
                values.append(coded(None, index, of))
                faults[row] = str(error)
        facts = {"input": self.input}
        return EncodedTarget(values, TargetData(kind=self.kind, classes=tuple(classes), facts=facts), faults)

    def refuse_flat(self, objects: Sequence[tuple[str, Sequence[float]]]) -> None:
        """Errors: ValueError for a box without area, unless such are dropped."""
        for place, (label, box) in enumerate(objects):
            if area(box) <= 0 and self.degenerate_boxes == "error":
                raise ValueError(
                    f"box {place} ('{label}') has no area: got {plain(box)}, wanted x0 < x1 and y0 < y1; to leave out "
                    "such a box alone, set model.heads.NAME.target_codec.degenerate_boxes=drop"
                )

    def align(self, target: Tensor, read: EncodedInput) -> list[Tensor]:
        """-> (objects, 5), class and x0, y0, x1, y1 as parts (0..1) of what the pixels show, cut at its edges

        Errors: ValueError for a box that lies outside the picture.
        """
        if target.isnan().all() or target[0, 0] == NOTHING:
            return [target]
        width, height = read.meta[0]["size"].tolist()
        outside = ((target[:, 1:3] >= torch.tensor([width, height])) | (target[:, 3:] <= 0)).any(1)
        if outside.any():
            place = int(outside.nonzero()[0])
            raise ValueError(
                f"box {place} lies outside the picture, which is {width:g} pixels wide and {height:g} high: "
                f"{plain(target[place, 1:].tolist())}"
            )
        start, end = read.meta[0]["frame"].view(2, 2)
        corners = (target[:, 1:].view(-1, 2, 2) - start) / (end - start)
        corners = torch.cat([corners.amin(1), corners.amax(1)], dim=1)  # mirrored, the ends change places
        shown = corners.clamp(0, 1)
        part = (shown[:, 2:] - shown[:, :2]).prod(1) / (corners[:, 2:] - corners[:, :2]).prod(1)
        keep = (part > 0) & (part >= self.min_visibility)
        aligned = torch.cat([target[:, :1], shown], dim=1)[keep]
        return [aligned if len(aligned) else nothing()]

    def strata(self, cell: Any) -> list[str]:
        try:
            return sorted({label for label, _ in objects_of(cell) or ()})
        except ValueError:
            return []

    def decode(self, target: Tensor, data: TargetData) -> list[dict[str, Any]] | None:
        if target.isnan().all():
            return None
        rows = [] if target[0, 0] == NOTHING else target.tolist()
        return [{"label": data.classes[int(kind)], "box": plain(box)} for kind, *box in rows]


def objects_of(cell: Any) -> list[tuple[str, list[float]]] | None:
    """Label and box of each; None where the cell is empty. Errors: ValueError for what is no list of objects."""
    if isinstance(cell, str) and cell.strip():
        try:
            cell = json.loads(cell)
        except ValueError as error:
            raise ValueError(f"got {cell:.60}, which is no JSON ({error}); {WANTED}") from None
    if not isinstance(cell, list | tuple | np.ndarray):
        if not text_of(cell):
            return None
        raise ValueError(f"got {cell!r:.80}; {WANTED}")
    found = []
    for one in cell:
        box = one.get("box") if isinstance(one, Mapping) else None
        label = label_of(one.get("label")) if isinstance(one, Mapping) else ""
        if not label or not isinstance(box, list | tuple | np.ndarray) or len(box) != 4 or not all(map(real, box)):
            raise ValueError(f"got {one!r:.80}; {WANTED}")
        found.append((label, [float(x) for x in box]))
    return found


def real(x: Any) -> bool:
    """Whether it is a number, and a finite one."""
    return isinstance(x, int | float) and not isinstance(x, bool) and isfinite(x)


def area(box: Sequence[float]) -> float:
    """0 or less where its ends are on one spot, or the wrong way round."""
    return min(box[2] - box[0], box[3] - box[1])


def nothing() -> Tensor:
    """Of a picture without any object."""
    return torch.tensor([[NOTHING, 0, 0, 0, 0]])


def coded(objects: Sequence[tuple[str, Sequence[float]]] | None, index: ClassIndex, of: str) -> Tensor:
    """(objects, 5). Errors: ValueError for an unknown label."""
    if objects is None:
        return torch.full((1, 5), torch.nan)
    rows = [[float(class_number(label, index, of)), *box] for label, box in objects]
    return torch.tensor(rows) if rows else nothing()


def plain(box: Sequence[float]) -> list[float]:
    """Whole numbers as such."""
    return [int(x) if float(x).is_integer() else round(x, 2) for x in box]
