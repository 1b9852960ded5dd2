"""Recognition of the columns of a table with a row per box, from their names or from `datamodule.columns.boxes`."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mm.cells import text_of
from mm.data.table import Cells
from mm.messages import listing, near

KEY = "datamodule.columns.boxes"
FORMATS = ("xyxy", "xywh", "cxcywh")
UNITS = ("pixels", "fraction")
# Names of the four columns, in lower case, without signs between words and without "bbox" or "box" before them.
FOUR_NAMES = {
    "xyxy": ("xmin ymin xmax ymax", "minx miny maxx maxy", "x1 y1 x2 y2", "x0 y0 x1 y1", "left top right bottom"),
    "xywh": (
        *("x y w h", "x y width height", "left top width height", "left top w h"),
        *("xmin ymin width height", "xmin ymin w h"),
    ),
    "cxcywh": (
        *("cx cy w h", "cx cy width height", "xcenter ycenter width height", "xcenter ycenter w h"),
        *("centerx centery width height", "centerx centery w h"),
    ),
}
ONE_NAME = ("", "bbox", "box", "boundingbox")  # a column with four numbers; "" is "bbox" without "bbox"
PICTURE_NAMES = (
    ("vision", "filename", "imagename", "imagefile", "imagepath", "filepath", "image", "img", "picture", "photo"),
    ("imageid", "imgid", "file", "path"),
)
LABEL_NAMES = (
    ("target", "class", "classname", "label", "labelname", "category", "categoryname", "object", "objectname"),
    ("classid", "labelid", "categoryid", "name"),
)
EXAMPLE = "{columns: [x, y, w, h], format: xywh}"


@dataclass(frozen=True)
class BoxColumns:
    """The columns of a table that state a box in each row.

    Attributes:
        columns: Names of four columns of numbers, or of one column with a list of four numbers.
        format: Meaning of the numbers: the corners ("xyxy"), the top left corner with width and height ("xywh"), or the
            centre with width and height ("cxcywh").
        unit: "pixels", or "fraction" of the width and height of the picture; None: fractions if all numbers are at
            most 1.
        class_name: Class of all boxes, if no column states one.
    """

    columns: tuple[str, ...]
    format: str
    unit: str | None = None
    class_name: str | None = None


def read_box_columns(setting: Any) -> BoxColumns:
    """Return the columns that a user names.

    Args:
        setting: The setting `datamodule.columns.boxes`: four columns whose names state their meaning, or {columns,
            format, unit, class_name}.

    Raises:
        ValueError: If a key or value is invalid, or if the names don't state their meaning.
    """
    full = dict(setting) if isinstance(setting, Mapping) else {"columns": setting}
    known = ("columns", "format", "unit", "class_name")
    for key in full:
        if key not in known:
            raise ValueError(f"{KEY}.{key}: nothing reads it, wanted some of {listing(known)}{near(str(key), known)}")
    names = full.get("columns")
    columns = (names,) if isinstance(names, str) else tuple(map(str, names)) if isinstance(names, list | tuple) else ()
    if len(columns) not in (1, 4):
        raise ValueError(f"{KEY}: got {setting!r}, wanted four columns, or one with four numbers, such as {EXAMPLE}")
    matches = [match for match in four_columns(columns) if match.columns == columns]
    box_format = full.get("format") or (matches[0].format if matches else None)
    if box_format is None:
        raise ValueError(
            f"{KEY}: {listing(columns)} may be corners, or a corner with width and height; state it, such as "
            f"{{columns: [{', '.join(columns)}], format: xywh}}, with one of {', '.join(FORMATS)}"
        )
    for key, value, allowed in (("format", box_format, FORMATS), ("unit", full.get("unit"), (None, *UNITS))):
        if value not in allowed:
            raise ValueError(f"{KEY}.{key}: got {value!r}, wanted one of {', '.join(filter(None, allowed))}")
    return BoxColumns(columns, str(box_format), full.get("unit"), full.get("class_name"))


def find_box_columns(cells: Cells) -> BoxColumns | None:
    """Return the columns of boxes that the names of a table's columns state; None if it has none.

    Args:
        cells: Column name to cells.

    Raises:
        ValueError: If several sets of columns could state the boxes, or a single column has four numbers, whose meaning
            is not known.
    """
    matches = list(four_columns(tuple(cells)))
    corners = {match.columns[:2] for match in matches if match.format == "xyxy"}
    # Beside the corners, `width` and `height` are those of the picture.
    matches = [match for match in matches if match.format == "xyxy" or match.columns[:2] not in corners]
    if len(matches) > 1:
        sets = " or ".join(f"[{', '.join(match.columns)}]" for match in matches)
        raise ValueError(f"the boxes may be in the columns {sets}; name them with {KEY}=[...]")
    if matches:
        return matches[0]
    for name in cells:
        if plain_name(name) in ONE_NAME and len(four_numbers(next(iter(filter(text_of, cells[name])), None))) == 4:
            raise ValueError(
                f"column '{name}': its four numbers may be corners, or a corner with width and height; state it with "
                f"{KEY}={{columns: {name}, format: xywh}}, with one of {', '.join(FORMATS)}"
            )
    return None


def four_columns(names: Sequence[str]) -> Iterator[BoxColumns]:
    """Yield every set of four columns whose names state a box.

    Args:
        names: Names of the columns.
    """
    by_name: dict[str, str] = {}
    for name in names:
        by_name.setdefault(plain_name(name), name)
    for box_format, sets in FOUR_NAMES.items():
        for parts in map(str.split, sets):
            if all(part in by_name for part in parts):
                yield BoxColumns(tuple(by_name[part] for part in parts), box_format)


def find_column(cells: Cells, tiers: Sequence[Sequence[str]], fix: str | None) -> str | None:
    """Return the column with one of some names; None if there is none.

    Args:
        cells: Column name to cells.
        tiers: Names in the order of preference.
        fix: The setting that names the column, for the message; None: of several columns none is meant.

    Raises:
        ValueError: If several columns have names of the same tier, and there is a setting.
    """
    for names in tiers:
        matches = [column for column in cells if plain_name(column, prefix=False) in names]
        if len(matches) > 1 and fix is None:
            return None
        if len(matches) > 1:
            raise ValueError(f"several columns may be meant: {listing(matches)}; name one with {fix}=...")
        if matches:
            return matches[0]
    return None


def plain_name(column: str, prefix: bool = True) -> str:
    """Return a column name in lower case without signs between words, and without "bbox" or "box" before it."""
    name = re.sub(r"[^a-z0-9]", "", column.lower()).replace("centre", "center")
    return re.sub(r"^(bndbox|bbox|box)", "", name) if prefix else name


def four_numbers(cell: Any) -> list[Any]:
    """Return the numbers in a cell such as "[10, 20, 30.5, 40]"; empty if it has none, or something else."""
    if isinstance(cell, str):
        parts: Sequence[Any] = re.sub(r"^\s*[\[(]|[\])]\s*$", "", cell).replace(",", " ").split()
    else:
        parts = list(cell) if hasattr(cell, "__len__") else []
    numbers = [number_of(part) for part in parts]
    return numbers if all(isinstance(number, float) for number in numbers) else []


def number_of(cell: Any) -> Any:
    """Return a cell as a float, or unchanged if it is not a number."""
    try:
        return float(cell)
    except (TypeError, ValueError):
        return cell
