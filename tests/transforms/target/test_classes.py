import numpy as np
import pytest

from mm.transforms.target.classes import Classes, sort_classes
from mm.types import IGNORE, TargetData

ALL = np.ones(4, dtype=bool)


def test_classes_and_counts_come_from_training_rows() -> None:
    train = np.array([True, True, True, False])
    targets, data, faults, _ = Classes().learn([" b ", "a", "b", "c"], train, None)
    assert targets.tolist() == [1, 0, 1, IGNORE]
    assert data.classes == ("a", "b")
    assert data.facts == {"counts": [1, 2], "num_classes": 2, "num_labels": 2}
    assert faults == {3: "unknown label 'c'; training rows have a, b"}
    assert [Classes().readable(target, data) for target in targets] == ["b", "a", "b", None]


def test_known_classes_keep_their_order() -> None:
    known = TargetData(kind="class", classes=("b", "a", "positive"))
    targets, data, faults, _ = Classes().learn(["a", "b", "", "Positve"], ~ALL, known)
    assert targets.tolist() == [1, 0, IGNORE, IGNORE]
    assert data.facts["counts"] == [0, 0, 0]
    assert faults[3].endswith("the model knows b, a, positive; did you mean 'positive'?")


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
    assert Classes().learn(cells, ALL, None).data.classes == classes


def test_undecodable_labels_are_named() -> None:
    targets, data, faults, _ = Classes().learn(["caf\udce9", "tea", "tea", "tea"], ALL, None)
    assert data.classes == ("tea",)
    assert targets[0] == IGNORE
    assert "not valid UTF-8" in faults[0]


def test_classes_are_sorted_by_number_where_all_are_numbers() -> None:
    assert sort_classes({"b", "a", "1"}) == ["1", "a", "b"]
    assert sort_classes({"10", "9"}) == ["9", "10"]
    assert sort_classes({"9", "10", "1.0", "1"}) == ["1", "1.0", "9", "10"]
    assert sort_classes({"nan", "9", "10", "inf"}) == ["10", "9", "inf", "nan"]  # nan is neither less nor more


def test_measured_numbers_are_no_classes() -> None:
    train = np.ones(30, dtype=bool)
    with pytest.raises(ValueError, match=r"got 30 different numbers, such as 0.5 and 29.5, .* model/heads=regression"):
        Classes().learn([f"{k}.5" for k in range(30)], train, None)
    for cells in ([str(k) for k in range(30)], [f"{k % 10}.5" for k in range(30)], [f"{k}.5a" for k in range(30)]):
        assert Classes().learn(cells, train, None).data.classes


def test_nearly_all_numbers_or_dates_are_no_classes() -> None:
    numbers = [f"{k / 3:.2f}" for k in range(30)]
    with pytest.raises(
        ValueError, match=r"got 30 different numbers, .* \(and 1 that are none, such as 'NA'\), wanted c"
    ):
        Classes().learn([*numbers, "NA"], np.ones(31, bool), None)
    dates = [f"2024-01-{k:02}" for k in range(1, 31)]
    with pytest.raises(ValueError, match="got 30 different dates or times, such as 2024-01-01, each of which would be"):
        Classes().learn(dates, np.ones(30, bool), None)
    codes = [f"{k}" for k in range(30)]
    assert len(Classes().learn([*codes, "x"], np.ones(31, bool), None).data.classes) == 31
