"""YOLO's text files, in the layouts that people have them in."""

from pathlib import Path

import pytest
from PIL import Image

from mm.data.readers.files import read_any, read_cells
from mm.datamodules.manifest import ManifestDataModule
from mm.targets.boxes import BoxTarget

YAML = "path: /content/somewhere\ntrain: images/train\nval: images/val\ntest:\nnames:\n  0: cat\n  1: dog\n"


def write(folder: Path, *lines: str, picture: str = "images/train/a.jpg", label: str | None = None) -> Path:
    """A picture of 40 x 20 pixels, and its text file unless there are no lines."""
    file = folder / picture
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (40, 20)).save(file)
    if lines:
        text = (folder / (label or picture.replace("images", "labels"))).with_suffix(".txt")
        text.parent.mkdir(parents=True, exist_ok=True)
        text.write_text("\n".join(lines) + "\n")
    return folder


def boxes(cell) -> list:
    return [(one["label"], one["box"]) for one in cell]


@pytest.fixture
def folder(tmp_path) -> Path:
    write(tmp_path, "1 0.5 0.5 0.5 0.5", "0 0.25 0.5 0.25 1")
    write(tmp_path, picture="images/train/b.jpg")
    write(tmp_path, "0 0.5 0.5 1 1", picture="images/val/c.png")
    (tmp_path / "data.yaml").write_text(YAML)
    return tmp_path


def test_a_folder_with_its_yaml_file(folder):
    cells = read_any(folder, "vision", boxes=True)
    assert cells == read_cells(folder) == read_cells(folder / "data.yaml")
    assert cells["id"] == ["images/train/a.jpg", "images/train/b.jpg", "images/val/c.png"]
    assert cells["split"] == ["train", "train", "val"]
    assert boxes(cells["target"][0]) == [("dog", [10, 5, 30, 15]), ("cat", [5, 0, 15, 20])]
    assert cells["target"][1] == [] and boxes(cells["target"][2]) == [("cat", [0, 0, 40, 20])]
    (folder / "labels/val/c.txt").unlink()
    assert read_cells(folder)["target"][2] is None  # no picture of its split has a text file


def test_pictures_are_turned_as_their_camera_says(tmp_path):
    write(tmp_path, "0 0.5 0.5 1 1")
    exif = Image.Exif()
    exif[274] = 6
    Image.new("RGB", (40, 20)).save(tmp_path / "images/train/a.jpg", exif=exif)
    assert boxes(read_cells(tmp_path)["target"][0]) == [("0", [0, 0, 20, 40])]


def test_the_folders_of_roboflow(tmp_path):
    for split in ("train", "valid"):
        write(tmp_path, "0 0.5 0.5 1 1", picture=f"{split}/images/a.jpg")
    (tmp_path / "data.yaml").write_text(
        "train: ../train/images\nval: ../valid/images\ntest: ../test/images\nnames: [cat]"
    )
    assert read_cells(tmp_path)["split"] == ["train", "val"]
    (tmp_path / "data.yaml").write_text("names: [cat]")  # the folders are called as splits
    assert read_cells(tmp_path)["split"] == ["train", "val"]
    assert boxes(read_cells(tmp_path)["target"][0]) == [("cat", [0, 0, 40, 20])]


def test_text_files_beside_the_pictures_and_lists_of_pictures(tmp_path):
    for name in "ab":
        write(tmp_path, "1 0.5 0.5 1 1", picture=f"{name}.jpg")
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    cells = read_any(tmp_path, "vision", boxes=True)
    assert [boxes(cell) for cell in cells["target"]] == [[("dog", [0, 0, 40, 20])]] * 2 and "split" not in cells
    (tmp_path / "train.txt").write_text("./a.jpg\n")
    (tmp_path / "val.txt").write_text("./b.jpg\n")
    (tmp_path / "data.yaml").write_text("train: train.txt\nval: val.txt\nnames: [cat, dog]")
    assert read_cells(tmp_path)["split"] == ["train", "val"]


def test_an_outline_is_the_box_around_it(tmp_path):
    write(tmp_path, "0 0.25 0.5 0.5 0.25 0.75 0.5 0.5 0.75")
    assert boxes(read_cells(tmp_path)["target"][0]) == [("0", [10, 5, 30, 15])]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("2 0.5 0.5 1 1", r"a.txt: line 2: unknown class 2; there are 0 \(cat\), 1 \(dog\)"),
        ("0 0.5 0.5 1", "a.txt: line 2: got 0 0.5 0.5 1; wanted class x y width height"),
        ("cat 0.5 0.5 1 1", "a.txt: line 2: got cat 0.5 0.5 1 1; wanted class x y width height"),
        ("0 20 10 40 20", "a.txt: line 2: got 0 20 10 40 20, with a number outside 0 to 1"),
        ("0 0.5 nan 1 1", "a.txt: line 2: got 0 0.5 nan 1 1; wanted class"),
    ],
)
def test_a_broken_line_is_named(folder, line, message):
    write(folder, "1 0.5 0.5 0.5 0.5", line)
    with pytest.raises(ValueError, match=message):
        read_cells(folder)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train: images/none\nnames: [a, b]", "data.yaml: train: images/none: no such folder or file"),
        ("train: images\nval: images/val\nnames: [a, b]", r"c.png is named by train and by val; leave the key 'val'"),
        ("names: cat", "data.yaml: names: got 'cat', wanted a list of class names"),
        ("[1", "data.yaml: is no YAML"),
        ("just text", "data.yaml: got 'just text', wanted a mapping"),
    ],
)
def test_a_broken_yaml_file(folder, text, message):
    (folder / "data.yaml").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_cells(folder / "data.yaml")


def test_a_box_without_area_is_a_fault_of_its_row(folder):
    write(folder, "1 0.5 0.5 0.5 0.5", "0 0.5 0.5 0 0.5")
    with pytest.raises(ValueError, match=r"id 'images/train/a.jpg'.*: box 1 \('cat'\) of line 2 in a.txt has no area"):
        _ = ManifestDataModule(folder, folder="vision", readers={"target": BoxTarget("vision")}, num_workers=0).table


def test_another_head_is_told_of_the_text_files(folder, printed_log):
    with pytest.raises(ValueError, match="lies in no class folder"):
        read_any(folder / "images", "vision")
    assert read_any(folder, "vision")["target"] == ["images"] * 3  # a folder per class
    assert "holds text files of boxes (YOLO), which model/heads=detection reads" in printed_log.readouterr().out


def test_text_files_without_picture_are_counted(folder, printed_log):
    (folder / "labels/train/z.txt").write_text("0 0.5 0.5 1 1\n")
    read_cells(folder)
    assert "1 text files of boxes belong to no picture, the first: labels/train/z.txt" in printed_log.readouterr().out
