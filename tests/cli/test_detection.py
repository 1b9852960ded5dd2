"""Objects in pictures, from a table, a VOC folder and a COCO file to boxes that a person reads."""

import csv
import json
from xml.sax.saxutils import escape

import numpy as np
import pyarrow.parquet
import pytest
from PIL import Image
from torch import tensor
from torchvision.ops import box_iou

import mm as package

COLOURS = {"red": (230, 40, 40), "blue": (40, 40, 230)}
WIDTH, HEIGHT = 64, 48
ARGS = ["model/heads=detection", "model/fusion=sum", "model.fusion.anchor=vision", "monitor.metric=val/map50"]
ARGS += ["datamodule.num_workers=0", "datamodule.batch_size=8", "trainer.accelerator=cpu", "model.embed_dim=32"]
ARGS += ["model.encoders.vision.widths=[8,16,32]", "datamodule.transforms.vision.size=[24,32]"]
ARGS += ["task.optimizer.lr=0.01", "datamodule=vision"]


def draw(rng: np.random.Generator, labels: list[str]) -> tuple[Image.Image, list[dict]]:
    """A square of each colour named, side by side or one above the other, none where none is named."""
    pixels = rng.normal(128, 10, (HEIGHT, WIDTH, 3)).clip(0, 255).astype(np.uint8)
    objects = []
    for half, label in enumerate(labels):
        side = int(rng.integers(12, 20))
        x, y = int(rng.integers(0, 32 - side)) + 32 * half, int(rng.integers(0, HEIGHT - side))
        pixels[y : y + side, x : x + side] = COLOURS[label]
        objects.append({"label": label, "box": [x, y, x + side, y + side]})
    return Image.fromarray(pixels), objects


@pytest.fixture
def rows(tmp_path):
    """photo, boxes as JSON text and split; and in which.jsonl those alone whose colour is named."""
    rng, which = np.random.default_rng(0), []
    with (tmp_path / "rows.csv").open("w", newline="") as file:
        write = csv.writer(file)
        write.writerow(["photo", "boxes", "split"])
        for i in range(60):
            labels = [["red", "blue"], ["blue", "red"], ["red"], ["blue", "blue"], []][i % 5]
            image, objects = draw(rng, labels)
            image.save(tmp_path / f"{i}.png")
            split = ("train", "train", "train", "train", "val", "test")[i // 5 % 6]
            write.writerow([f"{i}.png", json.dumps(objects), split])
            for word in COLOURS:
                only = [{**one, "label": "square"} for one in objects if one["label"] == word]
                which.append({"photo": f"{i}.png", "words": f"the {word} one", "boxes": only, "split": split})
    (tmp_path / "which.jsonl").write_text("".join(json.dumps(line) + "\n" for line in which))
    return tmp_path / "rows.csv"


NAME = "target/prediction"
V2 = "torchvision.transforms.v2"
COLUMNS = ["datamodule.columns.vision=photo", "datamodule.columns.target=boxes"]


def test_learns_tells_and_serves(mm, rows):
    args = [*ARGS, *COLUMNS, f"datamodule.path={rows}", "datamodule/transforms/vision=microscopy"]
    run = mm("train", *args, "trainer.max_epochs=15", "trainer.check_val_every_n_epoch=5", "run=boxes")
    assert run.status == 0, run.err
    assert run.metrics["test/map50"] > 0.8
    assert "test/map50/red" in run.metrics
    assert 0 < run.metrics["test/map"] < run.metrics["test/map50"]
    loaded = package.load(run.folder / "model")
    with rows.open(newline="") as file:
        lines = [line for line in csv.DictReader(file) if line["split"] == "train"]
    answers = loaded.predict([{"vision": str(rows.parent / line["photo"])} for line in lines])
    right = []
    for line, answer in zip(lines, answers):
        told, truth = [*answer["target"]["prediction"], *answer["target"]["low_confidence"]], json.loads(line["boxes"])
        assert all(0 <= x <= limit for one in told for x, limit in zip(one["box"], (WIDTH, HEIGHT) * 2))
        best = told[: len(truth)]
        overlap = box_iou(*(tensor([one["box"] for one in found]).view(-1, 4) for found in (truth, best)))
        for one, row in zip(truth, overlap if best else []):
            right.append(bool(row.max() > 0.5) and best[int(row.argmax())]["label"] == one["label"])
    assert len(right) > 50 and sum(right) > 0.8 * len(right)
    said = mm("predict", "checkpoint=outputs/boxes/model", *args[-2:-1], "datamodule=vision", *COLUMNS[:1])
    assert said.status == 0, said.err
    table = pyarrow.parquet.read_table(said.folder / "predictions.parquet").to_pylist()
    told = [*table[0][NAME], *table[0]["target/low_confidence"]]
    assert {"label", "box", "score"} == set(told[0])
    measured = mm("evaluate", "checkpoint=outputs/boxes/model", *args[-2:-1], "datamodule=vision", *COLUMNS)
    assert measured.status == 0, measured.err
    assert measured.metrics["test/map50"] == pytest.approx(run.metrics["test/map50"], abs=1e-6)


def test_a_text_says_which(mm, rows):
    """Of red and blue squares only the named ones are wanted: without the text nobody knows which."""
    args = [*ARGS, f"datamodule.path={rows.with_name('which.jsonl')}", "datamodule=manifest", "model/fusion=film"]
    args += [
        *COLUMNS,
        "datamodule.columns.text=words",
        "model/encoders/text=hashed_ngrams",
        "trainer.max_epochs=20",
        "trainer.check_val_every_n_epoch=10",
    ]
    args += ["task.optimizer.lr=0.005"]
    run = mm("train", *args)
    assert run.status == 0, run.err
    assert run.metrics["test/map50"] > 0.7
    assert run.metrics["test[vision]/map50"] < run.metrics["test/map50"] - 0.1


def write_voc(folder, rng):
    for name in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (folder / name).mkdir(parents=True)
    for i in range(12):
        image, objects = draw(rng, [["red", "blue"], ["blue"]][i % 2])
        image.save(folder / f"JPEGImages/{i:02}.jpg")
        parts = [
            f"<object><name>{escape(one['label'])}</name><bndbox>"
            + "".join(f"<{k}>{v}</{k}>" for k, v in zip(("xmin", "ymin", "xmax", "ymax"), one["box"]))
            + "</bndbox></object>"
            for one in objects
        ]
        (folder / f"Annotations/{i:02}.xml").write_text(f"<annotation>{''.join(parts)}</annotation>")
    for split, numbers in (("train", range(8)), ("val", (8, 9)), ("test", (10, 11)), ("trainval", range(10))):
        (folder / f"ImageSets/Main/{split}.txt").write_text("".join(f"{i:02}\n" for i in numbers))


def test_a_voc_folder_and_a_box_without_area(mm, tmp_path):
    write_voc(tmp_path / "voc", np.random.default_rng(0))
    args = [*ARGS, f"datamodule.path={tmp_path}/voc", "trainer.max_epochs=1"]
    fine = mm("train", *args)
    assert fine.status == 0, fine.err
    assert "train 8, val 2, test 2 rows" in fine.out
    file = tmp_path / "voc/Annotations/03.xml"
    file.write_text(file.read_text().replace("</annotation>", "<object><name>red</name><bndbox><xmin>5</xmin><ymin>6"
                    "</ymin><xmax>5</xmax><ymax>6</ymax></bndbox></object></annotation>"))  # fmt: skip
    wrong = mm("train", *args)
    assert wrong.status == 2
    assert "row 3 (id '03'), column 'target': box 1 ('red') has no area: got [5, 6, 5, 6]" in wrong.err
    assert "target_codec.degenerate_boxes=drop" in wrong.err
    without = mm("train", *args, "datamodule.on_error=drop")
    assert without.metrics["data/faulty_rows"] == 1
    rest = mm("train", *args, "model.heads.target.target_codec.degenerate_boxes=drop")
    assert rest.status == 0, rest.err
    assert "boxes without area left out: 1, in rows 3" in rest.out
    assert rest.metrics["data/faulty_rows"] == 0


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["model.fusion.anchor=null"], "predicts something of each token: set model.fusion.anchor"),
        (["model.heads.target.top_k=0"], "top_k: got 0, wanted at least 1"),
        (
            ["model.heads.target.target_codec.min_visibility=2"],
            "target_codec.min_visibility: got 2, wanted a part of a box",
        ),
        (
            [f"datamodule.transforms.vision.augment=[{{_target_: {V2}.RandomRotation, degrees: 9}}]"],
            "the augmentation RandomRotation turns, shears or bends the picture",
        ),
        (["datamodule.columns.target=photo"], "which is no JSON"),
        (["task.unimodal_probes=true"], "predicts something of each token of 'vision'"),
    ],
)
def test_mistakes(mm, rows, args, said):
    run = mm("train", *ARGS, *COLUMNS, f"datamodule.path={rows}", "trainer.max_epochs=1", *args)
    assert run.status == 2, run.err
    assert said in run.err


def test_an_anchor_that_is_no_picture(mm, rows):
    columns = ["datamodule=manifest", *COLUMNS, "datamodule.columns.text=split", "model.fusion.anchor=text"]
    run = mm("train", *ARGS, *columns, f"datamodule.path={rows}", "trainer.max_epochs=1")
    assert run.status == 2
    assert "model.fusion.anchor: got 'text', which is text, but a head predicts something of parts of vision" in run.err
