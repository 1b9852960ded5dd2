"""Pictures and the text files of YOLO, one line per box -> columns of cells."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from mm.data.readers.box_columns import number_of
from mm.data.readers.boxes import annotated_pictures
from mm.data.splitting import spelt
from mm.data.table import SPLITS, Cells
from mm.messages import listing, say
from mm.modalities import get_modality
from mm.modalities.vision import read_size

NAME_FILES = ("classes.txt", "labels/classes.txt", "obj.names", "names.txt")  # a class per line, beside labels
TOLERANCE = 1e-3  # how far rounded coordinates may lie outside of the picture
LINE = "class x y width height, the centre and size of the box as fractions of the picture, from 0 to 1"


def is_yolo(path: Path) -> bool:
    """Return whether a folder holds pictures with the text files of YOLO.

    It has a YAML file with the key `names`, a file of class names, or folders `images` and `labels`, and a text file
    with a box in each line.
    """
    named = find_yaml(path) is not None or any((path / name).is_file() for name in NAME_FILES)
    paired = any((part / "labels").is_dir() and (part / "images").is_dir() for part in (path, *path.glob("*/")))
    return (named or paired) and any(is_label_file(file) for file in label_files(path))


def read_yolo(path: Path) -> Cells:
    """Return the pictures of YOLO's layout with their boxes.

    The boxes of `images/train/1.jpg` are in `labels/train/1.txt`, those of a picture in no folder `images` beside it.
    The splits are those of the YAML file, or else the folders that are called as splits. A picture without text file
    holds no object, except where no picture of its split has one: these are unlabelled.

    Args:
        path: The folder, or its YAML file.

    Returns:
        Columns vision, target, id, and split where there are any.

    Raises:
        ValueError: If there is no picture, a line is not that of a box, or the YAML file names something that does not
            exist.
    """
    file, root = (path, path.resolve().parent) if path.is_file() else (find_yaml(path), path.resolve())
    about = {} if file is None else read_yaml(file)
    names = class_names(about.get("names"), file, root)
    rows = [] if file is None else listed_pictures(file, about)
    pictures, splits = [picture for picture, _ in rows], [split for _, split in rows]
    if not rows:
        pictures, splits = annotated_pictures(root)
    labels = [label_file(picture, root) for picture in pictures]
    labelled = {split for split, label in zip(splits, labels, strict=True) if label.is_file()}
    cells: Cells = {
        "vision": [str(picture) for picture in pictures],
        "target": [
            read_labels(label, picture, names) if split in labelled else None
            for picture, label, split in zip(pictures, labels, splits, strict=True)
        ],
        "id": [
            picture.relative_to(root).as_posix() if picture.is_relative_to(root) else str(picture)
            for picture in pictures
        ],
    }
    lost = sorted({label for label in label_files(root) if is_label_file(label)} - set(labels))
    if lost:
        say(
            f"{root.name}: {len(lost)} text files of boxes belong to no picture, the first: {lost[0].relative_to(root)}"
        )
    return cells | ({"split": splits} if all(split in SPLITS for split in splits) else {})


def find_yaml(folder: Path) -> Path | None:
    """Return the YAML file in a folder that names classes as YOLO's do; None if there is none."""
    for file in sorted([*folder.glob("*.yaml"), *folder.glob("*.yml")]):
        try:
            if "names" in read_yaml(file):
                return file
        except ValueError:
            continue
    return None


def read_yaml(file: Path) -> dict[str, Any]:
    """Return the content of YOLO's YAML file.

    Raises:
        ValueError: If the file is not a mapping in YAML.
    """
    try:
        about = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeError) as error:
        raise ValueError(f"{file}: is no YAML ({error})") from None
    if not isinstance(about, Mapping):
        raise ValueError(f"{file}: got {about!r:.60}, wanted a mapping, such as {{train: images/train, names: [cat]}}")
    return dict(about)


def class_names(names: Any, file: Path | None, root: Path) -> dict[int, str] | None:
    """Return the name of each class; None if no file names them.

    Args:
        names: The key `names` of the YAML file: a list, or a mapping of class numbers to names.
        file: The YAML file, for messages.
        root: The folder, which may hold a file of names instead.

    Raises:
        ValueError: If `names` is neither.
    """
    if names is None:
        lists = [root / name for name in NAME_FILES if (root / name).is_file()]
        if not lists:
            say(f"{root.name}: no data.yaml and no classes.txt name the classes, which are called by their numbers")
            return None
        names = [line.strip() for line in lists[0].read_text(encoding="utf-8").splitlines() if line.strip()]
    if isinstance(names, Mapping) and all(str(number).isdecimal() for number in names):
        return {int(number): str(name) for number, name in names.items()}
    if isinstance(names, Sequence) and not isinstance(names, str):
        return {number: str(name) for number, name in enumerate(names)}
    raise ValueError(f"{file}: names: got {names!r:.60}, wanted a list of class names, or {{0: cat, 1: dog}}")


def listed_pictures(file: Path, about: Mapping[str, Any]) -> list[tuple[Path, str]]:
    """Return the pictures that a YAML file names, each with its split; empty if it names none.

    Args:
        file: The YAML file.
        about: Its content: under `train`, `val` and `test` a folder, a text file with a path per line, or a list of
            them, relative to `path`, or to the folder of the file.

    Raises:
        ValueError: If a folder or file does not exist, holds no picture, or if a picture is in two splits.
    """
    rows: dict[Path, str] = {}
    for key, entry in about.items():
        split = spelt(str(key))
        if split not in SPLITS or not entry:
            continue
        for one in [entry] if isinstance(entry, str) else entry:
            place = find_place(file, about.get("path"), str(one))
            if place is None and split == "test":
                say(f"{file.name}: test: there is no {one}, so that there are no test rows of it")
                continue
            pictures = [] if place is None else pictures_of(place)
            if not pictures:
                reason = "no such folder or file" if place is None else f"no picture in {place}"
                raise ValueError(f"{file}: {key}: {one}: {reason}; name a folder of pictures, or leave the key out")
            twice = next((picture for picture in pictures if rows.get(picture, split) != split), None)
            if twice is not None:
                raise ValueError(
                    f"{file}: {twice.name} is named by {rows[twice]} and by {split}; leave the key '{key}' out, so "
                    "that its rows are drawn at random"
                )
            rows |= dict.fromkeys(pictures, split)
    return list(rows.items())


def find_place(file: Path, root: Any, name: str) -> Path | None:
    """Return the folder or file that a YAML file names; None if it does not exist.

    Args:
        file: The YAML file.
        root: Its key `path`, which may be a folder of another machine.
        name: The name, relative to `path` or to the folder of the YAML file. Exports of Roboflow write ../train for a
            folder beside the file.
    """
    folder = file.resolve().parent
    bases = [folder, *([folder / str(root)] if root else [])][::-1]
    names = [name, name.removeprefix("../")]
    return next((base / one for base in bases for one in names if (base / one).exists()), None)


def pictures_of(place: Path) -> list[Path]:
    """Return the pictures in a folder, or those that a text file lists, one per line."""
    suffixes = get_modality("vision").suffixes
    if place.is_dir():
        return sorted(
            f.resolve() for f in place.rglob("*") if f.suffix.lower() in suffixes and not f.name.startswith(".")
        )
    lines = place.read_text(encoding="utf-8").split("\n")
    return [(place.parent / line.strip()).resolve() for line in lines if line.strip()]


def label_files(folder: Path) -> Iterator[Path]:
    """Yield the text files below a folder that may hold boxes."""
    return (file for file in folder.rglob("*.txt") if file.name != "classes.txt" and not file.name.startswith("."))


def is_label_file(file: Path) -> bool:
    """Return whether the first line of a file is that of a box."""
    with file.open(encoding="utf-8", errors="replace") as lines:
        fields = next((line.split() for line in lines if line.strip()), [])
    return len(fields) >= 5 and fields[0].isdecimal() and all(isinstance(number_of(x), float) for x in fields[1:])


def label_file(picture: Path, root: Path) -> Path:
    """Return the path of the text file with the boxes of a picture, whether or not it exists."""
    parts = list(picture.relative_to(root).parts if picture.is_relative_to(root) else picture.parts)
    if "images" in parts[:-1]:
        last = len(parts) - 2 - parts[:-1][::-1].index("images")
        parts[last] = "labels"
    return root.joinpath(*parts).with_suffix(".txt")


def read_labels(file: Path, picture: Path, names: Mapping[int, str] | None) -> list[dict[str, Any]] | None:
    """Return the boxes of a picture in pixels, with the line of each.

    Args:
        file: Its text file. If it does not exist, the picture holds no object.
        picture: The picture, whose size in pixels is read from its header.
        names: Name of each class; None: they are called by their numbers.

    Returns:
        The boxes; None if there are boxes, but the picture can't be read.

    Raises:
        ValueError: If a line is not that of a box, or has an unknown class; the message names file and line.
    """
    if not file.is_file():
        return []
    objects = []
    for number, line in enumerate(file.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        fields = line.split()
        if fields:
            try:
                label, box = parse_line(fields, names)
            except ValueError as error:
                raise ValueError(f"{file}: line {number}: {error}") from None
            objects.append({"label": label, "box": box, "place": f"line {number} in {file.name}"})
    size = read_size(picture) if objects else (0, 0)
    if size is None:
        return None
    width, height = size
    for one in objects:
        x0, y0, x1, y1 = one["box"]
        one["box"] = [x0 * width, y0 * height, x1 * width, y1 * height]
    return objects


def parse_line(fields: Sequence[str], names: Mapping[int, str] | None) -> tuple[str, list[float]]:
    """Return the class and the corners of a box, as fractions of the picture.

    The outline of an object (class x y x y x y ...) is replaced by the box around it.

    Args:
        fields: The words of a line.
        names: Name of each class; None: they are called by their numbers.

    Raises:
        ValueError: If the line is not that of a box.
    """
    outline = len(fields) >= 7 and len(fields) % 2 == 1
    numbers = [number_of(x) for x in fields[1:]]
    if (
        not all(isinstance(x, float) and x == x for x in numbers)
        or not (outline or len(fields) == 5)
        or not fields[0].isdecimal()
    ):
        raise ValueError(f"got {' '.join(fields):.60}; wanted {LINE}")
    if not all(-TOLERANCE <= x <= 1 + TOLERANCE for x in numbers):
        raise ValueError(f"got {' '.join(fields):.60}, with a number outside 0 to 1; wanted {LINE}")
    index = int(fields[0])
    if names is not None and index not in names:
        known = listing([f"{number} ({name})" for number, name in names.items()])
        raise ValueError(f"unknown class {index}; there are {known}")
    label = str(index) if names is None else names[index]
    if outline:
        return label, [min(numbers[::2]), min(numbers[1::2]), max(numbers[::2]), max(numbers[1::2])]
    x, y, width, height = numbers
    return label, [x - width / 2, y - height / 2, x + width / 2, y + height / 2]
