"""Files of detection's own formats -> columns of cells: VOC's folders and COCO's JSON."""

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from mm.data.splitting import spelt
from mm.data.table import SPLITS
from mm.messages import listing, say
from mm.modalities import get_modality

LISTS = ("ImageSets/Main", "splits")  # folders that hold train.txt, val.txt and test.txt
CORNERS = ("xmin", "ymin", "xmax", "ymax")


def is_voc(path: Path) -> bool:
    """Whether it is a folder of VOC's layout."""
    return (path / "Annotations").is_dir() and (path / "JPEGImages").is_dir()


def read_voc(path: Path) -> dict[str, list[Any]]:
    """JPEGImages, Annotations and ImageSets/Main (Everingham 2010) -> columns vision, target, id, and split if told.

    train.txt, val.txt and test.txt name the rows; trainval.txt stands in for train.txt where there is none; without any
    list every picture is one. A picture without annotation is unlabelled. Errors: ValueError naming what is broken.
    """
    path = path.resolve()
    files = sorted(f for f in (path / "JPEGImages").iterdir() if f.suffix.lower() in get_modality("vision").suffixes)
    pictures = {f.stem: f for f in files}
    rows: list[tuple[str, str | None]] = [(stem, None) for stem in pictures]
    folder = next((path / name for name in LISTS if any((path / name).glob("*.txt"))), None)
    if folder is not None:
        named = {split: folder / f"{split}.txt" for split in ("train", "val", "test")}
        if not named["train"].is_file():
            named["train"] = folder / "trainval.txt"
        rows = [
            (stem, split)
            for split, file in named.items()
            if file.is_file()
            for stem in file.read_text(encoding="utf-8").split()
        ]
        left = len(set(pictures) - {stem for stem, _ in rows})
        if left:
            say(f"{path.name}: {left} pictures that no list in {folder.relative_to(path)} names are left out")
    if not rows:
        raise ValueError(f"datamodule.path: {path}: no picture in JPEGImages, or no name in its lists")
    cells: dict[str, list[Any]] = {
        "vision": [str(pictures.get(stem, path / "JPEGImages" / f"{stem}.jpg")) for stem, _ in rows],
        "target": [read_annotation(path / "Annotations" / f"{stem}.xml") for stem, _ in rows],
        "id": [stem for stem, _ in rows],
    }
    return cells | ({} if folder is None else {"split": [split for _, split in rows]})


def has_annotations(path: Path) -> bool:
    """Return whether a folder holds annotations of VOC's kind, as LabelImg writes them, in whatever folder below it."""
    first = next(path.rglob("*.xml"), None)
    if first is None:
        return False
    try:
        return ElementTree.parse(first).getroot().tag == "annotation"
    except ElementTree.ParseError:
        return False


def read_annotated(path: Path) -> dict[str, list[Any]]:
    """Return the pictures of a folder with the annotations beside them, or in another folder below it.

    Args:
        path: The folder. A picture and its annotation are called alike but for the suffix. Where all pictures lie in
            folders that are called as splits, these are their splits.

    Returns:
        Columns vision, target, id, and split where there are any. A picture without annotation is unlabelled.

    Raises:
        ValueError: If there is no picture, an annotation is broken, or fits none or several pictures.
    """
    path = path.resolve()
    pictures, splits = annotated_pictures(path)
    by_stem: dict[str, list[Path]] = defaultdict(list)
    for picture in pictures:
        by_stem[picture.stem].append(picture)
    files: dict[Path, Path] = {}
    for file in sorted(path.rglob("*.xml")):
        among = [picture for picture in by_stem[file.stem] if picture.parent == file.parent] or by_stem[file.stem]
        if len(among) != 1:
            several = "no picture" if not among else f"{len(among)} pictures"
            raise ValueError(f"{file}: {several} of its name; wanted one, as {file.stem}.jpg beside it")
        files[among[0]] = file
    cells: dict[str, list[Any]] = {
        "vision": [str(picture) for picture in pictures],
        "target": [read_annotation(files[p]) if p in files else None for p in pictures],
        "id": [picture.relative_to(path).as_posix() for picture in pictures],
    }
    return cells | ({"split": splits} if all(split in SPLITS for split in splits) else {})


def annotated_pictures(folder: Path) -> tuple[list[Path], list[str]]:
    """Return the pictures below a folder, and the folder of each that may be its split, or "".

    Args:
        folder: The folder, as an absolute path. Folders called `images` are passed over.

    Raises:
        ValueError: If there is no picture.
    """
    suffixes = get_modality("vision").suffixes
    pictures = sorted(f for f in folder.rglob("*") if f.suffix.lower() in suffixes and not f.name.startswith("."))
    if not pictures:
        raise ValueError(f"datamodule.path: {folder}: no picture beside the annotations; wanted {', '.join(suffixes)}")
    parts = [[part for part in f.relative_to(folder).parts[:-1] if part != "images"] for f in pictures]
    return pictures, [spelt(part[0]) if part else "" for part in parts]


def read_annotation(path: Path) -> list[dict[str, Any]] | None:
    """One picture's objects; None where there is no such file. Errors: ValueError where it is none of VOC's."""
    if not path.is_file():
        return None
    try:
        found = []
        for one in ElementTree.parse(path).getroot().iter("object"):
            box = one.find("bndbox")
            values = {child.tag: float(child.text or "") for child in box if child.tag in CORNERS}  # type: ignore[union-attr]
            found.append({"label": one.findtext("name"), "box": [values[corner] for corner in CORNERS]})
    except (ElementTree.ParseError, KeyError, TypeError, ValueError) as error:
        wanted = f"<object><name>...</name><bndbox> with {listing(list(CORNERS))}"
        raise ValueError(f"{path}: {type(error).__name__} {error}; wanted {wanted}") from None
    return found


def is_coco(document: Any) -> bool:
    """Whether a JSON file's content is COCO's."""
    return isinstance(document, Mapping) and "images" in document


def read_coco(path: Path, document: Mapping[str, Any]) -> dict[str, list[Any]]:
    """{images, annotations, categories} (Lin 2014) -> columns vision, target and id.

    Pictures are looked for beside the file, in `images` beside it, and, as COCO has them, in a folder beside its own
    that is named as the file is without `instances_`. Crowds are no objects and left out, which is told. Without
    `annotations` every row is unlabelled. Errors: ValueError where the file is none of COCO's.
    """
    wanted = "{images: [{id, file_name}], annotations: [{image_id, category_id, bbox}], categories: [{id, name}]}"
    try:
        images = [(one["id"], one["file_name"]) for one in document["images"]]
        names = {one["id"]: one["name"] for one in document.get("categories", ())}
        objects: dict[Any, list[dict[str, Any]]] = defaultdict(list)
        crowds = 0
        for one in document.get("annotations", ()):
            if one.get("iscrowd"):
                crowds += 1
                continue
            x, y, width, height = one["bbox"]
            label = names[one["category_id"]]
            objects[one["image_id"]].append({"label": label, "box": [x, y, x + width, y + height]})
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"{path}: {type(error).__name__} {error}; wanted COCO's {wanted}") from None
    lost = set(objects) - {number for number, _ in images}
    if lost:
        raise ValueError(f"{path}: annotations of image_id {listing(sorted(map(str, lost)))}, which `images` lacks")
    if crowds:
        say(f"{path.name}: {crowds} crowds are left out: they are no objects of their own")
    beside = path.resolve().parent
    folders = [beside, beside / "images", beside.parent / "images"]
    folders += [beside.parent / path.stem.removeprefix("instances_")]
    root = next((one for one in folders if images and (one / images[0][1]).is_file()), beside)
    known = "annotations" in document
    return {
        "vision": [str(root / name) for _, name in images],
        "target": [objects.get(number, []) if known else None for number, _ in images],
        "id": [str(number) for number, _ in images],
    }
