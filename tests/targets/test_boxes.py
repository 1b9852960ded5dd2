"""Boxes as a person writes them, and where they lie in what the pixels show."""

import json

import numpy as np
import pytest
import torch

from mm.targets.boxes import BoxTarget
from mm.types import EncodedInput, EncodedTarget

CAT, DOG = {"label": "cat", "box": [10, 20, 30, 60]}, {"label": "dog", "box": [0, 0, 100, 50.5]}


def learn(*cells, known=None, **how) -> EncodedTarget:
    return BoxTarget("vision", **how).fit(cells, np.ones(len(cells), bool), known)


def test_reads_lists_and_json_and_back():
    cells = [[CAT, DOG], json.dumps([DOG]), [], "[]", None, "", np.array([CAT], dtype=object)]
    found = learn(*cells)
    assert not found.faults
    assert found.data.classes == ("cat", "dog") and found.data.facts == {"input": "vision"}
    reads = BoxTarget("vision")
    back = [reads.decode(v, found.data) for v in found.values]
    assert back == [[CAT, DOG], [DOG], [], [], None, None, [CAT]]
    assert [reads.strata(cell) for cell in cells[:3]] == [["cat", "dog"], ["dog"], []]
    again = learn([{"label": "cow", "box": [0, 0, 1, 1]}], [DOG], known=found.data)
    assert again.data.classes == ("cat", "dog")
    assert "unknown label 'cow'; the model knows cat, dog" in again.faults[0]
    assert again.values[1][0, 0] == 1


@pytest.mark.parametrize(
    "cell",
    [
        "cat",
        {"label": "cat"},
        [{"label": "cat"}],
        [{"label": "", "box": [0, 0, 1, 1]}],
        [{"label": "cat", "box": [0, 0, 1]}],
        [{"label": "cat", "box": [0, 0, 1, "1"]}],
        [{"label": "cat", "box": [0, 0, 1, float("nan")]}],
        [["cat", 0, 0, 1, 1]],
        7,
    ],
)
def test_what_is_no_list_of_boxes(cell):
    found = learn(cell, [CAT])
    assert 'wanted a list of {"label": "cat", "box": [x0, y0, x1, y1]}' in found.faults[0]
    assert found.values[0].isnan().all() and found.values[0].shape == (1, 5)
    assert BoxTarget("vision").strata(cell) == []


@pytest.mark.parametrize("box", [[5, 5, 5, 5], [5, 5, 5, 9], [9, 5, 5, 9]])
def test_boxes_without_area(box, printed_log):
    flat = {"label": "cat", "box": box}
    found = learn([CAT], [DOG, flat], [flat])
    assert list(found.faults) == [1, 2]
    assert f"box 1 ('cat') has no area: got {box}, wanted x0 < x1 and y0 < y1" in found.faults[1]
    assert "target_codec.degenerate_boxes=drop" in found.faults[1]
    assert not printed_log.readouterr().out
    dropped = learn([CAT], [DOG, flat], [flat], degenerate_boxes="drop")
    assert not dropped.faults
    assert [BoxTarget("vision").decode(v, dropped.data) for v in dropped.values] == [[CAT], [DOG], []]
    assert printed_log.readouterr().out == "boxes without area left out: 2, in rows 1, 2\n"


def align(frame, *cells, size=(100, 80), **how) -> list[list[float]]:
    reads, found = BoxTarget("vision", **how), learn(*cells)
    read = EncodedInput(
        [torch.zeros(1)], False, [{"frame": torch.tensor(frame).float(), "size": torch.tensor(size).float()}]
    )
    return reads.align(found.values[0], read)[0].tolist()


def test_parts_of_what_is_shown():
    cell = [{"label": "cat", "box": [10, 20, 30, 60]}]
    assert align((0, 0, 100, 80), cell) == [pytest.approx([0, 0.1, 0.25, 0.3, 0.75])]
    assert align((100, 0, 0, 80), cell) == [pytest.approx([0, 0.7, 0.25, 0.9, 0.75])]  # mirrored
    assert align((0, 80, 100, 0), cell) == [pytest.approx([0, 0.1, 0.25, 0.3, 0.75])]  # upside down: symmetric
    assert align((20, 10, 60, 50), cell) == [pytest.approx([0, 0, 0.25, 0.25, 1])]  # a quarter is cut off on each side
    assert align((-50, 0, 150, 80), cell) == [pytest.approx([0, 0.3, 0.25, 0.4, 0.75])]  # a margin


def test_what_is_cut_off_is_not_there():
    cell = [{"label": "cat", "box": [10, 20, 30, 60]}, DOG]
    half = (20, 0, 100, 80)
    assert [row[0] for row in align(half, cell)] == [0, 1]
    assert [row[0] for row in align(half, cell, min_visibility=0.6)] == [1]
    assert align((30, 51, 100, 80), cell, min_visibility=0) == [[-1, 0, 0, 0, 0]]  # nothing is left: that is told, too
    assert align((30, 51, 100, 80), [], [CAT]) == [[-1, 0, 0, 0, 0]]
    assert torch.tensor(align(half, None, [CAT])).isnan().all()


def test_a_box_outside_the_picture():
    with pytest.raises(ValueError, match=r"box 1 lies outside the picture, which is 100 pixels wide and 80 high: \[1"):
        align((0, 0, 100, 80), [CAT, {"label": "cat", "box": [100, 0, 120, 10]}])
    align((0, 0, 100, 80), [{"label": "cat", "box": [-5, 0, 105, 90]}])  # at its edge is fine


def test_mistyped_options():
    with pytest.raises(ValueError, match=r"target_codec.degenerate_boxes: got 'skip', wanted one of error, drop"):
        BoxTarget("vision", degenerate_boxes="skip")
    with pytest.raises(ValueError, match=r"target_codec.min_visibility: got -1, wanted a part"):
        BoxTarget("vision", min_visibility=-1)


def test_training_rows_without_a_box_are_an_error_unless_there_is_a_trained_model():
    codec, train = BoxTarget("vision"), np.array([True, False])
    with pytest.raises(ValueError, match="no training row has a box"):
        codec.fit([[], [CAT]], train, None)
    known = codec.fit([[CAT], []], train, None).data
    assert codec.fit([[], [CAT]], train, known).data.classes == known.classes
