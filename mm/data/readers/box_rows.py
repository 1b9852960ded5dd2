"""Tables with a row per box -> columns of cells with a row per picture."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isnan
from pathlib import Path
from typing import Any, NamedTuple

from mm.cells import label_of, text_of
from mm.data.column_names import named, unused
from mm.data.readers.box_columns import (
    KEY,
    LABEL_NAMES,
    PICTURE_NAMES,
    BoxColumns,
    find_box_columns,
    find_column,
    four_numbers,
    number_of,
    read_box_columns,
)
from mm.data.table import Cells
from mm.messages import listing, say
from mm.modalities import get_modality
from mm.modalities.vision import read_size
from mm.types import TargetCodec


class PictureRows(NamedTuple):
    """Cells of one file with a row per picture, the roles of its columns, and where its rows are in the file."""

    cells: Cells
    columns: Mapping[str, Any]
    places: list[str] | None = None  # such as "rows 4 to 6"; None: each row is one of the file


@dataclass(frozen=True)
class BoxTable:
    """A table with a row per box.

    Args:
        cells: Column name to cells.
        columns: The setting `datamodule.columns`: role to column name.
        boxes: The columns of the boxes.
        target: Name of the target.
        picture: Column of the pictures.
        label: Column of the classes; None: all boxes have `boxes.class_name`, or the class is not read.
    """

    cells: Cells
    columns: Mapping[str, Any]
    boxes: BoxColumns
    target: str
    picture: str
    label: str | None

    def group_rows(self) -> dict[str, list[int]]:
        """Return the rows of each picture, by the text of its cell.

        Raises:
            ValueError: If a row names no picture.
        """
        rows: dict[str, list[int]] = {}
        for row, cell in enumerate(self.cells[self.picture]):
            text = text_of(cell) if isinstance(cell, str | int | Path) else ""
            if not text:
                raise ValueError(f"row {row}: column '{self.picture}' names no picture; got {cell!r:.60}")
            rows.setdefault(text, []).append(row)
        return rows

    def numbers(self, row: int) -> list[Any]:
        """Return the numbers of the box of a row; a cell that is not a number stays as it is, an empty cell is ""."""
        if len(self.boxes.columns) == 1:
            cell = self.cells[self.boxes.columns[0]][row]
            return [] if not text_of(cell) else four_numbers(cell) or [cell]
        cells = [self.cells[column][row] for column in self.boxes.columns]
        cells = [number_of(cell) if text_of(cell) else "" for cell in cells]
        cells = ["" if isinstance(cell, float) and isnan(cell) else cell for cell in cells]
        return [] if all(cell == "" for cell in cells) else cells

    def unit(self) -> str:
        """Return the unit of the numbers: the stated one, or "fraction" if all numbers are at most 1.

        Raises:
            ValueError: If most rows have numbers up to 1 only, but others don't.
        """
        if self.boxes.unit is not None:
            return self.boxes.unit
        highest = [
            max(numbers)
            for row in range(len(self.cells[self.picture]))
            if (numbers := [x for x in self.numbers(row) if isinstance(x, float)])
        ]
        small = sum(x <= 1 for x in highest)
        if small and small == len(highest):
            say(f"the columns {listing(self.boxes.columns)} are taken as fractions of the picture; see {KEY}")
            return "fraction"
        if small > len(highest) / 2:
            raise ValueError(
                f"columns {listing(self.boxes.columns)}: {small} of {len(highest)} boxes have numbers up to 1 only, "
                f"others up to {max(highest):g}; state with {KEY}={{columns: [{', '.join(self.boxes.columns)}], "
                "unit: pixels}, or unit: fraction, what they are"
            )
        return "pixels"

    def objects(self, rows: Sequence[int], scale: tuple[float, float]) -> list[dict[str, Any]]:
        """Return the objects of a picture, as `BoxTarget` reads them, each with the place of its row.

        Args:
            rows: Rows of the picture. A row without any number states that the picture holds no object.
            scale: Factors of horizontal and vertical coordinates.
        """
        objects = []
        for row in rows:
            numbers = self.numbers(row)
            if numbers:
                label = self.boxes.class_name if self.label is None else label_of(self.cells[self.label][row])
                box = corners(numbers, self.boxes.format, scale)
                objects.append({"label": label, "box": box, "place": f"row {row}"})
        return objects

    def shared_cell(self, column: str, rows: Sequence[int]) -> Any:
        """Return the cell of a column that all rows of a picture share.

        Raises:
            ValueError: If they differ.
        """
        cells = self.cells[column]
        first = text_of(cells[rows[0]])
        other = next((row for row in rows if text_of(cells[row]) != first), None)
        if other is not None:
            raise ValueError(
                f"rows {rows[0]} and {other} are boxes of the picture {self.cells[self.picture][rows[0]]}, but column "
                f"'{column}' has '{first}' and '{text_of(cells[other])}'; wanted one value per picture"
            )
        return cells[rows[0]]

    def used_columns(self) -> set[str]:
        """Return the other columns that have a role, by their setting or their name."""
        taken = {self.picture, self.label, *self.boxes.columns}
        settings = {role: value for role, value in self.columns.items() if role != "boxes"}
        roles = {role for role in ("split", "group") if not unused(self.columns, role)}
        return {name for name in (*strings(settings), *roles) if name in self.cells} - taken


def group_boxes(
    cells: Cells,
    columns: Mapping[str, Any],
    path: Path,
    root: Path | None,
    codecs: Mapping[str, TargetCodec],
    trained: bool,
) -> PictureRows:
    """Return a table with a row per picture, from one with a row per box.

    A table is recognised by the names of its columns if a target is boxes, or by the setting `columns.boxes`.

    Args:
        cells: Column name to cells.
        columns: The setting `datamodule.columns`: role to column name.
        path: Path of the file.
        root: Folder of the pictures; None: it is looked for beside the file.
        codecs: Target name to codec.
        trained: Whether the columns are those of a trained model, which may do without classes.

    Returns:
        The cells by picture, with the list of its boxes in place of the class; or those that were passed, if the table
        has no row per box.

    Raises:
        ValueError: If columns are missing or ambiguous, or if rows of a picture contradict each other.
    """
    unchanged = PictureRows(cells, {role: value for role, value in columns.items() if role != "boxes"})
    setting = columns.get("boxes")
    target = next((name for name, codec in codecs.items() if codec.kind == "boxes"), None)
    if setting is False or (setting is None and (target is None or has_lists(cells, columns, target))):
        return unchanged
    try:
        boxes = find_box_columns(cells) if setting is None else read_box_columns(setting)
        table = None if boxes is None else find_table(cells, columns, boxes, target or "target", trained)
        return unchanged if table is None else by_picture(table, path, root)
    except ValueError as error:
        raise ValueError(f"{path.name}: {error}") from None


def has_lists(cells: Cells, columns: Mapping[str, Any], target: str) -> bool:
    """Return whether the column of a target has lists of boxes already, as text or as data."""
    column = target_column(columns, target) or "target"
    cell = next(iter(filter(text_of, cells.get(column, ()))), None)
    return cell.lstrip().startswith("[") if isinstance(cell, str) else hasattr(cell, "__len__")


def target_column(columns: Mapping[str, Any], target: str) -> str | None:
    """Return the column that the user names for a target; None if there is none."""
    column = (columns.get("targets") or {}).get(target)
    return str(column) if column is not None else named(columns, "target") if target == "target" else None


def picture_column(columns: Mapping[str, Any]) -> str | None:
    """Return the column that the user names for pictures; None if there is none."""
    inputs = [full for full in (columns.get("inputs") or {}).values() if isinstance(full, Mapping)]
    pictures = [named(full, "column") for full in inputs if full.get("modality") == "vision"]
    return named(columns, "vision") or next(iter(pictures), None)


def find_table(
    cells: Cells, columns: Mapping[str, Any], boxes: BoxColumns, target: str, trained: bool
) -> BoxTable | None:
    """Return the table with the columns of its pictures and classes.

    Args:
        cells: Column name to cells.
        columns: The setting `datamodule.columns`.
        boxes: The columns of the boxes.
        target: Name of the target.
        trained: Whether the table is read for a trained model, which may do without classes.

    Raises:
        ValueError: If a column is missing or ambiguous.
    """
    picture = picture_column(columns) or find_column(cells, PICTURE_NAMES, "datamodule.columns.vision")
    label = target_column(columns, target)
    if label is None and boxes.class_name is None:
        label = find_column(cells, LABEL_NAMES, None if trained else "datamodule.columns.target")
    if boxes.class_name is not None and label is not None:
        raise ValueError(f"{KEY}.class_name: column '{label}' states the classes already; leave one of them out")
    rest = listing([name for name in cells if name not in boxes.columns])
    for role, column in (("picture", picture), ("class", label)):
        key = "datamodule.columns." + {"picture": "vision", "class": "target"}[role]
        if column is None and (role == "picture" or (boxes.class_name is None and not trained)):
            single = f", or set {KEY}={{columns: [{', '.join(boxes.columns)}], class_name: cat}}"
            raise ValueError(
                f"a row per box, in {listing(boxes.columns)}, but no column is known to hold the {role}; name one of "
                f"{rest} with {key}{single if role == 'class' else ''}"
            )
    for column in (*boxes.columns, picture, label):
        if column is not None and column not in cells:
            raise ValueError(f"no column '{column}'; there are {listing(list(cells), 30)}")
    assert picture is not None
    return BoxTable(cells, columns, boxes, target, picture, label)


def by_picture(table: BoxTable, path: Path, root: Path | None) -> PictureRows:
    """Return the rows of a table by picture.

    Args:
        table: The table.
        path: Path of the file.
        root: Folder of the pictures; None: it is looked for beside the file.
    """
    groups = table.group_rows()
    files = find_pictures(list(groups), path, root)
    used = table.used_columns()
    cells: Cells = {column: [table.shared_cell(column, rows) for rows in groups.values()] for column in used}
    if named(table.columns, "id") is None:
        cells["id"] = list(groups)
    cells[table.picture] = [str(file) for file in files]
    columns = {role: value for role, value in table.columns.items() if role != "boxes"}
    if picture_column(columns) is None:
        columns["vision"] = table.picture
    if table.label is not None or table.boxes.class_name is not None:
        column = table.label or table.target
        fraction = table.unit() == "fraction"
        scales = (read_size(file) if fraction else (1, 1) for file in files)
        cells[column] = [
            None if scale is None else table.objects(rows, scale)  # a picture that can't be read is a fault itself
            for rows, scale in zip(groups.values(), scales, strict=True)
        ]
        if table.target == "target":
            columns["target"] = column
        else:
            columns["targets"] = {**(columns.get("targets") or {}), table.target: column}
    return PictureRows(cells, columns, [describe_rows(rows) for rows in groups.values()])


def corners(numbers: list[Any], box_format: str, scale: tuple[float, float]) -> list[Any]:
    """Return x0, y0, x1, y1 in pixels; unchanged if a value is not a number, which `BoxTarget` reports.

    Args:
        numbers: The numbers of a box.
        box_format: Their meaning, as in `BoxColumns`.
        scale: Factors of horizontal and vertical coordinates.
    """
    if len(numbers) != 4 or not all(isinstance(x, float) for x in numbers):
        return numbers
    x, y, right, bottom = numbers
    if box_format == "cxcywh":
        x, y, right, bottom = x - right / 2, y - bottom / 2, x + right / 2, y + bottom / 2
    elif box_format == "xywh":
        right, bottom = x + right, y + bottom
    return [x * scale[0], y * scale[1], right * scale[0], bottom * scale[1]]


def find_pictures(names: Sequence[str], path: Path, root: Path | None) -> list[Path]:
    """Return the path of each picture.

    Args:
        names: Names of the pictures, which may lack the suffix.
        path: The file that names them. For train_labels.csv, pictures are looked for beside the file, and in `images`,
            `train`, `images/train`, `train_images` and ../images.
        root: Folder of the pictures, if it is known.
    """
    suffixes = get_modality("vision").suffixes
    beside = path.resolve().parent
    stem = path.stem.removesuffix("_labels").removesuffix("_annotations")
    folders = [beside, beside / "images", beside / stem, beside / "images" / stem, beside / f"{stem}_images"]
    folders = [*folders, beside.parent / "images"] if root is None else [root.resolve()]

    def candidates(folder: Path, name: str) -> Iterator[Path]:
        yield folder / name
        if not name.lower().endswith(suffixes):
            yield from (folder / f"{name}{suffix}" for suffix in suffixes)

    folder = next((one for one in folders if any(file.is_file() for file in candidates(one, names[0]))), folders[0])
    return [next((file for file in candidates(folder, name) if file.is_file()), folder / name) for name in names]


def describe_rows(rows: Sequence[int]) -> str:
    """Return where the boxes of a picture are in their file, such as "rows 4 to 6"."""
    if len(rows) == 1:
        return f"row {rows[0]}"
    if len(rows) > 2 and rows[-1] - rows[0] == len(rows) - 1:
        return f"rows {rows[0]} to {rows[-1]}"
    return f"rows {listing(list(map(str, rows)))}"


def strings(value: Any) -> Iterator[str]:
    """Yield every text in nested mappings and lists."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        yield from (text for one in value.values() for text in strings(one))
    elif isinstance(value, list | tuple):
        yield from (text for one in value for text in strings(one))
