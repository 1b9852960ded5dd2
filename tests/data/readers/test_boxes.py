"""VOC's folders and COCO's JSON, written on the spot; and the real blood cells where there are."""

import json
import os
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from mm.data.readers.files import read_any, read_cells
from mm.datamodules.manifest import ManifestDataModule
from mm.targets.boxes import BoxTarget

OBJECT = "<object><name>{}</name><part><name>head</name></part><bndbox><xmax>{}</xmax><xmin>{}</xmin>"
OBJECT += "<ymin>{}</ymin><ymax>{}</ymax></bndbox></object>"
BOX = [{"label": "cat", "box": [1.0, 2.0, 30.0, 40.5]}]


def voc(folder: Path, lists: str | None = "ImageSets/Main") -> Path:
    for name in ("JPEGImages", "Annotations", *([lists] if lists else [])):
        (folder / name).mkdir(parents=True)
    for stem in ("a", "b", "c"):
        Image.new("RGB", (50, 50)).save(folder / f"JPEGImages/{stem}.jpg")
    (folder / "Annotations/a.xml").write_text(f"<annotation>{OBJECT.format('cat', 30, 1, 2, 40.5)}</annotation>")
    (folder / "Annotations/b.xml").write_text("<annotation></annotation>")
    if lists:
        for split, stems in (("train", "a\n"), ("test", "b\n"), ("trainval", "a\nc\n")):
            (folder / lists / f"{split}.txt").write_text(stems)
    return folder


@pytest.mark.parametrize("lists", ["ImageSets/Main", "splits"])
def test_a_voc_folder_and_its_lists(tmp_path, lists, printed_log):
    folder = voc(tmp_path / "voc", lists)
    cells = read_cells(folder)
    assert cells == read_any(folder, "vision")
    assert cells["id"] == ["a", "b"] and cells["split"] == ["train", "test"]
    assert cells["target"] == [BOX, []]
    assert all(Path(file).is_file() for file in cells["vision"])
    assert f"voc: 1 pictures that no list in {lists} names are left out" in printed_log.readouterr().out
    (folder / lists / "train.txt").unlink()
    assert read_cells(folder)["id"] == ["a", "c", "b"]  # of trainval, and what has no annotation is unlabelled
    assert read_cells(folder)["target"] == [BOX, None, []]


def test_a_voc_folder_without_lists(tmp_path):
    cells = read_cells(voc(tmp_path, None))
    assert cells["id"] == ["a", "b", "c"] and "split" not in cells


@pytest.mark.parametrize(
    "text", ["<annotation><object>", "<a><object><name>x</name></object></a>", OBJECT.format("x", "wide", 1, 2, 3)]
)
def test_a_broken_annotation_is_named(tmp_path, text):
    folder = voc(tmp_path, None)
    (folder / "Annotations/b.xml").write_text(text)
    with pytest.raises(ValueError, match=r"Annotations/b.xml: .*; wanted <object><name>...</name><bndbox> with xmin"):
        read_cells(folder)


def coco(**changed) -> dict:
    images = [{"id": 7, "file_name": "x/a.jpg"}, {"id": 8, "file_name": "b.jpg"}]
    annotations = [{"image_id": 7, "category_id": 3, "bbox": [1, 2, 29, 38.5]}]
    annotations.append({"image_id": 7, "category_id": 3, "bbox": [0, 0, 50, 50], "iscrowd": 1})
    whole = {"images": images, "annotations": annotations, "categories": [{"id": 3, "name": "cat"}]}
    return {key: value for key, value in (whole | changed).items() if value is not None}


@pytest.mark.parametrize("place", [".", "images", "../images", "../val2017"])
def test_a_coco_file_and_where_its_pictures_lie(tmp_path, place, printed_log):
    file = tmp_path / "annotations/instances_val2017.json"
    file.parent.mkdir()
    for name in ("x/a.jpg", "b.jpg"):
        picture = (file.parent / place / name).resolve()
        picture.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (50, 50)).save(picture)
    file.write_text(json.dumps(coco()))
    cells = read_cells(file)
    assert cells["target"] == [BOX, []] and cells["id"] == ["7", "8"]
    assert all(Path(path).is_file() for path in cells["vision"])
    assert "1 crowds are left out" in printed_log.readouterr().out
    file.write_text(json.dumps(coco(annotations=None)))
    assert read_cells(file)["target"] == [None, None]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"images": [{"id": 7}]}, "KeyError 'file_name'; wanted COCO's"),
        ({"categories": []}, "KeyError 3; wanted COCO's"),
        ({"annotations": [{"image_id": 7, "category_id": 3, "bbox": [1, 2]}]}, "ValueError .*; wanted COCO's"),
        ({"images": [{"id": 8, "file_name": "b.jpg"}]}, "annotations of image_id 7, which `images` lacks"),
        ({"images": None}, "wanted a file as SQuAD has it"),
    ],
)
def test_a_broken_coco_file(tmp_path, changed, said):
    (tmp_path / "a.json").write_text(json.dumps(coco(**changed)))
    with pytest.raises(ValueError, match=said):
        read_cells(tmp_path / "a.json")


def test_no_json(tmp_path):
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(ValueError, match="is no JSON .*; wanted a file of SQuAD's or COCO's"):
        read_cells(tmp_path / "a.json")


def test_the_real_blood_cells(printed_log):
    root = Path(os.environ.get("MM_DATA", "data")) / "bccd"
    if not root.is_dir():
        pytest.skip("BCCD is not there; set MM_DATA")
    split = {"val": 0.1, "test": 0.1, "seed": 0}
    shared = {"batch_size": 8, "num_workers": 0, "seed": 0, "split": split, "folder": "vision"}
    shared["columns"] = dict.fromkeys(("vision", "target"))
    with pytest.raises(ValueError, match=r"bccd: row \d+ \(id 'BloodImage_003(38|43)'\), column 'target': box \d+ "):
        _ = ManifestDataModule(
            path=str(root), on_error="raise", readers={"target": BoxTarget("vision")}, **shared
        ).table
    reads = BoxTarget("vision", degenerate_boxes="drop")
    module = ManifestDataModule(path=str(root), on_error="raise", readers={"target": reads}, **shared)
    assert Counter(module.table.split) == {"train": 205, "val": 87, "test": 72}
    assert "boxes without area left out: 2, in rows" in printed_log.readouterr().out
    assert module.table.spec.targets["target"].classes == ("Platelets", "RBC", "WBC")
    counts = Counter(one["label"] for row in range(364) for one in module.truth("target", row))
    assert counts == {"RBC": 4153, "WBC": 372, "Platelets": 361}


def labelled_pictures(folder: Path, *pictures: str) -> Path:
    for name in pictures:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (50, 50)).save(folder / name)
    return folder


def test_annotations_beside_pictures_are_read_whatever_the_folders_are_called(tmp_path, printed_log):
    folder = labelled_pictures(tmp_path / "cats", "a.jpg", "sub/b.png", "c.jpg")
    text = f"<annotation>{OBJECT.format('cat', 30, 1, 2, 40.5)}</annotation>"
    (folder / "a.xml").write_text(text)
    (folder / "labels").mkdir()
    (folder / "labels/b.xml").write_text(text)
    cells = read_any(folder, "vision", boxes=True)
    assert cells["id"] == ["a.jpg", "c.jpg", "sub/b.png"] and cells["target"] == [BOX, None, BOX]
    assert "split" not in cells
    with pytest.raises(ValueError, match="a.jpg lies in no class folder"):
        read_any(folder, "vision")
    assert "cats: holds annotations of boxes (VOC), which model/heads=detection reads" in printed_log.readouterr().out
    (folder / "d.xml").write_text(text)
    with pytest.raises(ValueError, match=r"d.xml: no picture of its name; wanted one, as d.jpg beside it"):
        read_any(folder, "vision", boxes=True)


def test_folders_that_are_called_as_splits_are_splits(tmp_path):
    folder = labelled_pictures(tmp_path, "train/a.jpg", "valid/a.jpg", "test/a.jpg")
    for split in ("train", "valid", "test"):
        (folder / split / "a.xml").write_text(f"<annotation>{OBJECT.format('cat', 30, 1, 2, 40.5)}</annotation>")
    data = ManifestDataModule(folder, folder="vision", readers={"target": BoxTarget("vision")}, num_workers=0)
    assert data.splits.tolist() == ["test", "train", "val"]
    assert data.spec.targets["target"].classes == ("cat",)
