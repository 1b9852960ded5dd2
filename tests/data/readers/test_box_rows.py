"""Tables with a row per box, as TensorFlow and Kaggle have them, become a row per picture."""

import csv
from pathlib import Path

import pytest
from PIL import Image

from mm.datamodules.manifest import ManifestDataModule
from mm.targets.boxes import BoxTarget

HEADER = "filename,width,height,class,xmin,ymin,xmax,ymax"
CAT, DOG = {"label": "cat", "box": [1, 2, 11, 12]}, {"label": "dog", "box": [5, 5, 30.5, 20]}


def write(folder: Path, header: str, *lines: str, name: str = "boxes.csv", pictures: str = ".") -> Path:
    """A table, and two pictures of 40 x 20 pixels."""
    (folder / pictures).mkdir(parents=True, exist_ok=True)
    for picture in "ab":
        Image.new("RGB", (40, 20)).save(folder / pictures / f"{picture}.jpg")
    (folder / name).write_text("\n".join([header, *lines]) + "\n")
    return folder / name


def read(path, columns=None, **settings) -> ManifestDataModule:
    settings = {"folder": "vision", "readers": {"target": BoxTarget("vision")}, "num_workers": 0} | settings
    return ManifestDataModule(path, columns=columns, split={"val": 0, "test": 0}, **settings)


def truth(data: ManifestDataModule) -> list:
    return [data.truth("target", row) for row in range(len(data.ids))]


TENSORFLOW = ("a.jpg,40,20,cat,1,2,11,12", "b.jpg,40,20,cat,1,2,11,12", "a.jpg,40,20,dog,5,5,30.5,20")


def test_the_table_of_tensorflow(tmp_path):
    data = read(write(tmp_path, HEADER, *TENSORFLOW))
    assert list(data.ids) == ["a.jpg", "b.jpg"] and truth(data) == [[CAT, DOG], [CAT]]
    assert data.spec.targets["target"].classes == ("cat", "dog")
    assert (
        data.row_name(0) == "boxes.csv: rows 0, 2 (id 'a.jpg')" and data.row_name(1) == "boxes.csv: row 1 (id 'b.jpg')"
    )
    assert len(list(data.loader("train"))) == 1  # the pictures are read, and the boxes lie in them


@pytest.mark.parametrize(
    ("header", "line"),
    [
        ("image_id,x,y,w,h,label", "{},1,2,10,10,cat"),
        ("image_id,width,height,x_min,y_min,x_max,y_max,class_name,class_id", "{},40,20,1,2,11,12,cat,3"),
        ("ImageID,LabelName,XMin,XMax,YMin,YMax", "{},cat,0.025,0.275,0.1,0.6"),
        ("path,bbox_x1,bbox_y1,bbox_x2,bbox_y2,category", "{},1,2,11,12,cat"),
        ("image,x_center,y_center,width,height,label", "{},6,7,10,10,cat"),
    ],
)
@pytest.mark.parametrize("name", ["a.jpg", "a"])
def test_other_names_of_columns(tmp_path, header, line, name):
    ((one,),) = truth(read(write(tmp_path, header, line.format(name))))
    assert one["label"] == "cat" and one["box"] == pytest.approx(CAT["box"], abs=0.01)


@pytest.mark.parametrize("place", ["images", "train", "images/train", "train_images"])
def test_where_pictures_are_looked_for(tmp_path, place):
    data = read(write(tmp_path, HEADER, *TENSORFLOW, name="train_labels.csv", pictures=place))
    assert [Path(file) for file in data.inputs["vision"]] == [tmp_path / place / name for name in ("a.jpg", "b.jpg")]
    data = read(tmp_path / "train_labels.csv", media_root=str(tmp_path / place))
    assert Path(data.inputs["vision"][1]) == tmp_path / place / "b.jpg"


def test_columns_that_a_user_names(tmp_path):
    path = write(tmp_path, "image,other,kind,what,bbox,split", 'x,a.jpg,k,cat,"[1, 2, 10, 10]",train')
    columns = {"vision": "other", "target": "what", "boxes": {"columns": "bbox", "format": "xywh"}}
    assert truth(read(path, columns)) == [[CAT]]
    assert read(path, columns).columns["boxes"] == {"columns": "bbox", "format": "xywh"}  # as a model keeps it
    columns = {"vision": "other", "boxes": {"columns": "bbox", "format": "xyxy", "class_name": "thing"}}
    assert truth(read(path, columns)) == [[{"label": "thing", "box": [1, 2, 10, 10]}]]
    one = read(
        [
            {
                "path": path,
                "columns": {"vision": "other", "target": "what", "boxes": columns["boxes"] | {"class_name": None}},
            }
        ]
    )
    assert truth(one) == [[{"label": "cat", "box": [1, 2, 10, 10]}]]


def test_empty_boxes_state_a_picture_without_objects_and_other_columns_stay(tmp_path):
    path = write(
        tmp_path,
        HEADER + ",split,site,row",
        "a.jpg,40,20,,,,,,train,x,1",
        "b.jpg,40,20,cat,1,2,11,12,train,y,2",
        "b.jpg,40,20,cat,1,2,11,12,train,y,3",
    )
    data = read(path, {"group": "site"})
    assert truth(data) == [[], [CAT, CAT]] and data.table.groups.tolist() == ["x", "y"]
    path.write_text(path.read_text().replace("train,y,3", "train,z,3"))
    with pytest.raises(
        ValueError, match=r"boxes.csv: rows 1 and 2 are boxes of the picture b.jpg, but column 'site' has 'y' and 'z'"
    ):
        _ = read(path, {"group": "site"}).table


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "a.jpg,40,20,dog,5,5,5,20",
            r"boxes.csv: rows 0, 1 \(id 'a.jpg'\), column 'class': box 1 \('dog'\) of row 1 has",
        ),
        (
            "a.jpg,40,20,dog,15,5,5,20\na.jpg,40,20,cat,5,5,5,5",
            r"box 1 \('dog'\) of row 1 has no area: .* \(nor have box 2 of row 2\)",
        ),
        ("a.jpg,40,20,dog,15,5,5,20", r"box 1 \('dog'\) of row 1 has no area: got \[15, 5, 5, 20\], wanted x0 < x1"),
        (
            "a.jpg,40,20,dog,five,5,5,20",
            r"rows 0, 1 \(id 'a.jpg'\), column 'class': got .*'five'.* of row 1; wanted a list",
        ),
        ("a.jpg,40,20,dog,,5,5,20", "of row 1; wanted a list"),
        ("a.jpg,40,20,,1,5,5,20", "of row 1; wanted a list"),
        (",40,20,cat,1,2,3,4", "row 1: column 'filename' names no picture"),
    ],
)
def test_a_faulty_box_is_a_fault_that_names_its_row(tmp_path, line, message):
    path = write(tmp_path, HEADER, TENSORFLOW[0], line, TENSORFLOW[1])
    with pytest.raises(ValueError, match=message):
        _ = read(path).table
    if line.startswith("a"):
        dropped = read(path, on_error="drop")
        assert dropped.splits.tolist() == ["", "train"] and len(dropped.faults) == 1


def test_a_box_outside_the_picture_is_a_fault_that_names_its_rows(tmp_path):
    data = read(write(tmp_path, HEADER, TENSORFLOW[0], "a.jpg,40,20,cat,40,2,50,12"))
    with pytest.raises(
        ValueError, match=r"rows 0, 1 \(id 'a.jpg'\).*: box 1 lies outside the picture.*\[40, 2, 50, 12\]"
    ):
        list(data.loader("train"))


def test_degenerate_boxes_are_dropped_on_request(tmp_path, printed_log):
    path = write(tmp_path, HEADER, TENSORFLOW[0], "a.jpg,40,20,dog,5,5,5,20")
    assert truth(read(path, readers={"target": BoxTarget("vision", degenerate_boxes="drop")})) == [[CAT]]
    assert "boxes without area left out: 1, in rows 1\n" in printed_log.readouterr().out


LINE = "a.jpg,cat,1,2,3,4"
SETTING = "datamodule.columns"


@pytest.mark.parametrize(
    ("header", "line", "boxes", "message"),
    [
        ("file_name,image,x,y,w,h", LINE, None, f"file_name, image; name one with {SETTING}.vision"),
        ("image,label,x,y,w,h,class", LINE + ",dog", None, f"label, class; name one with {SETTING}.target"),
        (
            "image,label,x,y,w,h,xmin,ymin,xmax,ymax",
            LINE + ",1,2,3,4",
            None,
            r"may be in the columns \[xmin, ymin, xmax, ymax\] or \[x, y, w, h\]",
        ),
        ("image,label,bbox", 'a.jpg,cat,"[1,2,3,4]"', None, "column 'bbox': its four numbers may be corners, or"),
        ("image,id,x,y,w,h", LINE, None, f"the class; name one of image, id with {SETTING}.target, or set"),
        ("photograph,label,x,y,w,h", LINE, None, f"the picture; name one of photograph, label with {SETTING}.vision"),
        ("image,label,a,b,c,d", LINE, ["a", "b", "c", "d"], "a, b, c, d may be corners"),
        ("image,label,a,b,c,d", LINE, {"columns": ["a", "b", "c", "e"], "format": "xywh"}, "no column 'e'"),
        ("image,label,a,b,c,d", LINE, {"column": ["a"]}, "boxes.column: nothing reads it.*did you mean 'columns'"),
        (
            "image,label,x,y,w,h",
            LINE,
            {"columns": ["x", "y", "w", "h"], "unit": "inch"},
            "unit: got 'inch', wanted one of pixels, fraction",
        ),
        (
            "image,label,x,y,w,h",
            "a.jpg,cat,0.1,0.2,0.5,0.5\n" * 2 + LINE,
            None,
            "2 of 3 boxes have numbers up to 1 only, others up to 4",
        ),
    ],
)
def test_ambiguous_columns(tmp_path, header, line, boxes, message):
    path = write(tmp_path, header, line)
    with pytest.raises(ValueError, match=message):
        _ = read(path, {"boxes": boxes}).table


def test_a_table_with_a_row_per_picture_stays_as_it_is(tmp_path):
    path = tmp_path / "rows.csv"
    write(tmp_path, "x", "x")
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(
            [["vision", "xmin", "target"], ["a.jpg", 1, '[{"label": "cat", "box": [1, 2, 11, 12]}]']]
        )
    assert truth(read(path)) == [[CAT]] and read(path).row_name(0) == "rows.csv: row 0 (id '0')"
    data = read(write(tmp_path, HEADER, *TENSORFLOW), {"vision": "filename", "target": "class"}, readers={})
    assert len(data.ids) == 3  # a classification of rows


def test_rows_in_memory(tmp_path, monkeypatch):
    write(tmp_path, "x", "x")
    monkeypatch.chdir(tmp_path)
    rows = [dict(zip(HEADER.split(","), ["a.jpg", 40, 20, "cat", 1, 2, 11, 12], strict=True))]
    data = read(rows, folder=None, readers={"target": BoxTarget("vision")})
    assert truth(data) == [[CAT]]
