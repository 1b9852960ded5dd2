import math

import numpy as np
import pytest

from datamodules.targets import encode, nearest, shown, sort_classes, text_of
from mm.types import IGNORE

ALL = np.ones(4, dtype=bool)


def test_classes_and_counts_come_from_training_rows() -> None:
    train = np.array([True, True, True, False])
    targets, data, faults = encode("class", "y", [" b ", "a", "b", "c"], train, None)
    assert targets.tolist() == [1, 0, 1, IGNORE]
    assert data.classes == ("a", "b")
    assert data.counts == (1, 2)
    assert [f.row for f in faults] == [3]
    assert faults[0].message == "unknown label 'c'; training rows have a, b"


def test_known_classes_keep_their_order() -> None:
    targets, data, faults = encode("class", "y", ["a", "b", "", "Positve"], ~ALL, ["b", "a", "positive"])
    assert targets.tolist() == [1, 0, IGNORE, IGNORE]
    assert data.counts == (0, 0, 0)
    assert faults[0].message.endswith("the model knows b, a, positive; did you mean 'positive'?")


@pytest.mark.parametrize(
    ("cells", "classes"),
    [
        (["10", "9", "1", ""], ("1", "9", "10")),
        ([10, 9, None, 1], ("1", "9", "10")),
        ([3.0, float("nan"), 1.0, 2.5], ("1", "2.5", "3")),  # integers with gaps come as floats
        (["10", "9", "x", "x"], ("10", "9", "x")),
        ([True, False, True, None], ("False", "True")),
    ],
)
def test_label_types(cells: list, classes: tuple) -> None:
    assert encode("class", "y", cells, ALL, None)[1].classes == classes


@pytest.mark.parametrize(("separator", "cell"), [("|", "a | b"), (";", "a;b"), (",", ["a", "b"]), ("|", ("b", "a"))])
def test_several_labels(separator: str, cell: object) -> None:
    targets, data, faults = encode("labels", "y", [cell, "c", "", None], ALL, None, separator)
    assert targets.tolist() == [[1, 1, 0], [0, 0, 1], [IGNORE] * 3, [IGNORE] * 3]
    assert data.classes == ("a", "b", "c")
    assert data.counts == (1, 1, 1)
    assert not faults


def test_none_of_the_labels_is_not_unlabelled() -> None:
    targets, _, _ = encode("labels", "y", [["a", 3.0, None], [], "|", None], ALL, None)
    assert targets.tolist() == [[1, 1], [0, 0], [0, 0], [IGNORE] * 2]


def test_one_unknown_of_several_labels() -> None:
    targets, _, faults = encode("labels", "y", ["a|z", "a", "b", "a|b"], np.array([False, True, True, True]), None)
    assert targets.tolist() == [[IGNORE] * 2, [1, 0], [0, 1], [1, 1]]
    assert "unknown label 'z'" in faults[0].message


def test_numbers() -> None:
    cells = ["1.5", "2", "", "nan", "-inf", "1,5", "x", "1e39", 3.5, None]
    train = np.array([True] * 9 + [False])
    targets, data, faults = encode("number", "y", cells, train, None)
    assert targets[[0, 1, 8]].tolist() == [1.5, 2, 3.5]
    assert targets.isnan().sum() == 7
    assert [f.row for f in faults] == [3, 4, 5, 6, 7]
    assert "write a decimal point" in faults[2].message
    assert "decimal" not in faults[3].message
    assert data.mean == pytest.approx(np.mean([1.5, 2, 3.5]))
    assert data.std == pytest.approx(np.std([1.5, 2, 3.5]))
    assert encode("number", "y", ["4"] * 4, ALL, None)[1].std == 1


def test_nothing_to_learn_from() -> None:
    with pytest.raises(ValueError, match="'y': no training row is labelled"):
        encode("class", "y", ["", None, float("nan"), "a"], np.array([True, True, True, False]), None)
    with pytest.raises(ValueError, match="'y': there are no training rows"):
        encode("class", "y", ["a"] * 4, ~ALL, None)
    with pytest.raises(ValueError, match="got kind 'clas', wanted class, labels or number"):
        encode("clas", "y", ["a"] * 4, ALL, None)


def test_undecodable_labels_are_named() -> None:
    cells = ["caf\udce9", "tea", "tea", "tea"]
    targets, data, faults = encode("class", "y", cells, ALL, None)
    assert data.classes == ("tea",)
    assert targets[0] == IGNORE
    assert "not valid UTF-8" in faults[0].message


def test_texts() -> None:
    cells = [None, math.nan, 3.0, 3.5, " a ", 7, math.inf, [1.0, "b"]]
    assert [text_of(c) for c in cells] == ["", "", "3", "3.5", "a", "7", "inf", "1|b"]
    assert sort_classes({"b", "a", "1"}) == ["1", "a", "b"]
    assert shown([str(k) for k in range(14)]).endswith("11 and 2 more")
    assert len(shown(["x" * 99])) == 40
    assert nearest("LABEL", ["label", "text"]) == "; did you mean 'label'?"
    assert nearest("q", ["label"]) == ""
