"""The grid of tested images with their true and their predicted boxes, and the same images for W&B."""

from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from mm.assembly.wandb_run import finish_wandb, wandb_images
from mm.evaluation.box_grid import find_box_grids
from mm.heads.detection import DetectionHead
from mm.runs.results import write_figures
from mm.tasks.answers import Answers
from mm.types import DataSpec, InputData, TargetData

CAT = {"label": "cat", "box": [2.0, 3.0, 12.0, 13.0]}
SURE, UNSURE = CAT | {"score": 0.9}, {"label": "dog", "box": [0.0, 0.0, 40.0, 20.0], "score": 0.25}


class Data:
    """Four images of 40 x 20 pixels: one without a label, one that can't be read."""

    spec = DataSpec(
        inputs={"vision": InputData(modality="vision")},
        targets={"target": TargetData(kind="boxes", classes=("cat", "dog"), facts={"input": "vision"})},
    )
    ids = ("a", "b", "c", "d")
    faults = {(3, "vision"): "can't read the image"}  # noqa: RUF012
    inputs = {"vision": [Image.new("RGB", (40, 20), (row * 60, 90, 90)) for row in range(3)] + [None]}  # noqa: RUF012

    def truth(self, name, row):
        return [[CAT], [], None, [CAT]][row]


def find_grids(tmp_path, *answers, head="target", **settings):
    decoded = Answers(tmp_path)
    for row, (sure, unsure) in enumerate(answers):
        decoded.add(row, {head: {"prediction": sure, "low_confidence": unsure}})
    heads = {"target": DetectionHead(classes=("cat", "dog"), input="vision", embed_dim=8, **settings)}
    return find_box_grids({name: head.decoding for name, head in heads.items()}, Data(), decoded, range(4))


def test_labelled_images_that_can_be_read_are_drawn(tmp_path):
    grids = find_grids(tmp_path, ([SURE], [UNSURE]), ([], [UNSURE]), ([SURE], []))
    assert list(grids) == ["test/boxes"]
    assert [(one.id, one.predicted, one.low_confidence, one.true) for one in grids["test/boxes"].images()] == [
        ("a", [SURE], [UNSURE], [CAT]),
        ("b", [], [UNSURE], []),
    ]
    assert all(one.image.size == (40, 20) for one in grids["test/boxes"].images())
    figure = grids["test/boxes"]()
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == ["a: 1 true", "1 predicted", "b: 0 true", "0 predicted"]
    assert [len(axes.patches) for axes in figure.axes] == [1, 1, 0, 0]
    assert figure.axes[1].patches[0].get_bbox().extents.tolist() == SURE["box"]
    assert [text.get_text() for text in figure.axes[1].texts] == ["0.90"]
    (path,) = write_figures(tmp_path, grids)
    assert path.name == "test_boxes.png" and np.asarray(Image.open(path)).std() > 10


def test_boxes_below_the_threshold_are_drawn_where_none_reaches_it(tmp_path):
    grid = find_grids(tmp_path, ([], [UNSURE]), ([], []), score_threshold=0.3)["test/boxes"]
    figure = grid()
    assert figure.get_suptitle() == "No predicted box of these images reaches the score threshold 0.3"
    assert [len(axes.patches) for axes in figure.axes] == [1, 1, 0, 0]
    assert figure.axes[1].patches[0].get_linestyle() == "--"
    assert figure.axes[1].get_title() == "0 predicted; dashed: the best below the threshold"


def test_rows_that_were_not_tested_are_left_out(tmp_path):
    grid = find_grids(tmp_path, ([SURE], []))["test/boxes"]
    assert [one.id for one in grid.images()] == ["a"]
    with pytest.raises(ValueError, match="no image was tested"):
        find_grids(tmp_path)["test/boxes"]()


def test_other_targets_have_no_grid(tmp_path, monkeypatch):
    monkeypatch.setitem(Data.spec.targets, "target", TargetData(kind="class", classes=("cat", "dog")))
    assert find_grids(tmp_path, ([SURE], [])) == {}


def test_images_of_wandb_have_both_kinds_of_boxes(tmp_path):
    first, second = wandb_images(find_grids(tmp_path, ([SURE], [UNSURE]), ([], []))["test/boxes"])
    boxes = first._boxes
    assert boxes["ground_truth"]._val == [
        {
            "position": {"minX": 2.0, "minY": 3.0, "maxX": 12.0, "maxY": 13.0},
            "domain": "pixel",
            "class_id": 0,
            "box_caption": "cat",
        }
    ]
    assert boxes["predictions"]._val[0]["scores"] == {"score": 0.9}
    assert boxes["predictions"]._val[0]["box_caption"] == "cat 0.90"
    assert boxes["low_confidence"]._val[0]["class_id"] == 1
    assert second._boxes["ground_truth"]._val == [] and first._caption == "a"


def test_the_run_of_wandb_gets_images_instead_of_the_file(tmp_path):
    (tmp_path / "config.yaml").write_text("a: 1\n")
    grids = find_grids(tmp_path, ([SURE], [UNSURE]), ([], []))
    (path,) = write_figures(tmp_path, grids)
    points = []
    run = SimpleNamespace(
        name="boxes",
        log=points.append,
        log_artifact=lambda artifact, aliases: None,
        summary={},
        finish=lambda: None,
    )
    finish_wandb(run, SimpleNamespace(global_step=9), grids, {}, {"model": tmp_path, path.stem: path}, {})
    assert [image._caption for image in points[0]["test/boxes"]] == ["a", "b"]
