"""Target codec for object detection: a class and a box for each object in an image."""

import json
from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from mm.cells import label_of, text_of
from mm.cells.classes import ClassIndex, class_number
from mm.configurable import Configurable
from mm.messages import listing, say
from mm.targets.classes import known_classes
from mm.types import EncodedInput, EncodedTarget, TargetData

NOTHING = -1.0  # class index of a row that stands for "no objects in the image"
WANTED = 'wanted a list of {"label": "cat", "box": [x0, y0, x1, y1]}, in pixels of the picture'
DEGENERATE_BOXES = ("error", "drop")


class BoxObject(NamedTuple):
    """An object in a cell: its label, its box (x0, y0, x1, y1) in pixels, and where its file states it, or ""."""

    label: str
    box: list[float]
    place: str = ""


class BoxTarget(Configurable):
    """Encode the objects in an image: a list of {"label": ..., "box": [x0, y0, x1, y1]}, or the same list as JSON text.

    Coordinates are in pixels of the image file after its EXIF orientation is applied, measured from the top left
    corner. An empty list means that the image contains no object. A row with an empty cell is unlabelled. An object may
    have a "place", such as "row 17", which messages about it name.

    Args:
        input: Name of the image input that contains the objects.
        degenerate_boxes: How to handle boxes without width or height. "error" reports them as an error of their row;
            "drop" leaves out only these boxes and prints how many there are.
        min_visibility: Minimum fraction of the area of a box that must remain visible after augmentation, in 0..1.
            Objects with a smaller visible fraction are left out.

    Raises:
        ValueError: If `degenerate_boxes` is unknown, or if `min_visibility` is not in 0..1.
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
        """Encode the cells of all rows; the values are one (objects, 5) float32 tensor per row.

        The five columns are the class index and x0, y0, x1, y1 in pixels. An image without objects has one row whose
        class is `NOTHING`, and an unlabelled image has one row of NaN.

        Args:
            cells: Cells of all rows, (N,).
            train: Whether each row is a training row, (N,) bool; the classes are those of the training rows.
            known: Target data of a trained model, whose classes are used instead; None: there is no such model.

        Raises:
            ValueError: If the training rows have no box.
        """
        rows: list[list[BoxObject] | None] = []
        faults: dict[int, str] = {}
        dropped: list[str] = []
        for row, cell in enumerate(cells):
            try:
                objects = objects_of(cell)
                flat = [one for one in objects or () if shorter_side(one.box) <= 0]
                if flat:
                    self.refuse_flat(objects or [])
                    dropped += [one.place.removeprefix("row ") or str(row) for one in flat]
                rows.append(None if objects is None else [one for one in objects if shorter_side(one.box) > 0])
            except ValueError as error:
                rows.append(None)
                faults[row] = str(error)
        if dropped:
            say(f"boxes without area left out: {len(dropped)}, in rows {', '.join(dict.fromkeys(dropped))}")
        classes, of = known_classes(known, [[one.label for one in rows[i] or ()] for i in np.flatnonzero(train)])
        if known is None and not classes and not train[list(faults)].any():
            raise ValueError("no training row has a box, wanted some; look at datamodule.columns.target and .split")
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

    def refuse_flat(self, objects: Sequence[BoxObject]) -> None:
        """Raise an error if a box has no width or no height, unless such boxes are dropped.

        Args:
            objects: The objects.

        Raises:
            ValueError: If a box is degenerate and `degenerate_boxes` is "error".
        """
        flat = [(number, one) for number, one in enumerate(objects) if shorter_side(one.box) <= 0]
        if not flat or self.degenerate_boxes != "error":
            return
        number, one = flat[0]
        where = f" of {one.place}" if one.place else ""
        others = listing([f"box {i}{f' of {other.place}' if other.place else ''}" for i, other in flat[1:]])
        more = f" (nor have {others})" if others else ""
        raise ValueError(
            f"box {number} ('{one.label}'){where} has no area: got {plain(one.box)}, wanted x0 < x1 and y0 < y1{more}; "
            "to leave out such a box alone, set model.heads.NAME.target_codec.degenerate_boxes=drop"
        )

    def align(self, target: Tensor, read: EncodedInput) -> list[Tensor]:
        """Return the objects with their boxes relative to the visible region of the image.

        Boxes are clipped at the edges of this region. Objects of which less than `min_visibility` is visible are left
        out.

        Args:
            target: Class index and x0, y0, x1, y1 in pixels of the image file, (objects, 5).
            read: The encoded image, whose meta has the size of the image and the region that the pixels show.

        Returns:
            One tensor (objects, 5): class index, and x0, y0, x1, y1 in 0..1.

        Raises:
            ValueError: If a box lies outside of the image.
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
        corners = torch.cat([corners.amin(1), corners.amax(1)], dim=1)  # the corners of a mirrored image are swapped
        shown = corners.clamp(0, 1)
        part = (shown[:, 2:] - shown[:, :2]).prod(1) / (corners[:, 2:] - corners[:, :2]).prod(1)
        keep = (part > 0) & (part >= self.min_visibility)
        aligned = torch.cat([target[:, :1], shown], dim=1)[keep]
        return [aligned if len(aligned) else nothing()]

    def strata(self, cell: Any) -> list[str]:
        try:
            return sorted({one.label for one in objects_of(cell) or ()})
        except ValueError:
            return []

    def decode(self, target: Tensor, data: TargetData) -> list[dict[str, Any]] | None:
        if target.isnan().all():
            return None
        rows = [] if target[0, 0] == NOTHING else target.tolist()
        return [{"label": data.classes[int(kind)], "box": plain(box)} for kind, *box in rows]


def objects_of(cell: Any) -> list[BoxObject] | None:
    """Return the objects in a cell, or None if the cell is empty.

    Raises:
        ValueError: If the cell is not a list of objects.
    """
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
            where = f" of {one['place']}" if isinstance(one, Mapping) and "place" in one else ""
            raise ValueError(f"got {one!r:.80}{where}; {WANTED}")
        found.append(BoxObject(label, [float(x) for x in box], str(one.get("place", ""))))
    return found


def real(x: Any) -> bool:
    """Return whether a value is a finite number."""
    return isinstance(x, int | float) and not isinstance(x, bool) and isfinite(x)


def shorter_side(box: Sequence[float]) -> float:
    """Return the smaller of the width and the height of a box (x0, y0, x1, y1).

    It is 0 or negative if the box is degenerate: it has no width or no height, or its corners are swapped.
    """
    return min(box[2] - box[0], box[3] - box[1])


def nothing() -> Tensor:
    """Return the target of an image without objects, (1, 5)."""
    return torch.tensor([[NOTHING, 0, 0, 0, 0]])


def coded(objects: Sequence[BoxObject] | None, index: ClassIndex, of: str) -> Tensor:
    """Return objects as a tensor (objects, 5) of the class index and x0, y0, x1, y1.

    Args:
        objects: The objects; None: the row is unlabelled.
        index: Class indices by name.
        of: The origin of the classes, for the error message, such as "the model knows".

    Raises:
        ValueError: If a label is unknown.
    """
    if objects is None:
        return torch.full((1, 5), torch.nan)
    rows = [[float(class_number(one.label, index, of)), *one.box] for one in objects]
    return torch.tensor(rows) if rows else nothing()


def plain(box: Sequence[float]) -> list[float]:
    """Return coordinates for display: integers without a decimal point, other numbers with two decimals."""
    return [int(x) if float(x).is_integer() else round(x, 2) for x in box]
