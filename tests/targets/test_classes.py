import numpy as np
import pytest

from mm.cells.classes import ClassIndex, one_form, probable_duplicates, sort_classes
from mm.targets.classes import ClassTarget
from mm.types import IGNORE, TargetData

ALL = np.ones(4, dtype=bool)


def test_classes_and_counts_come_from_training_rows() -> None:
    train = np.array([True, True, True, False])
    targets, data, faults, _ = ClassTarget().fit([" b ", "a", "b", "c"], train, None)
    assert targets.tolist() == [1, 0, 1, IGNORE]
    assert data.classes == ("a", "b")
    assert data.facts == {"counts": [1, 2], "num_classes": 2, "num_labels": 2}
    assert faults == {3: "unknown label 'c'; training rows have a, b"}
    assert [ClassTarget().decode(target, data) for target in targets] == ["b", "a", "b", None]


def test_known_classes_keep_their_order() -> None:
    known = TargetData(kind="class", classes=("b", "a", "positive"))
    targets, data, faults, _ = ClassTarget().fit(["a", "b", "", "Positve"], ~ALL, known)
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
    assert ClassTarget().fit(cells, ALL, None).data.classes == classes


def test_undecodable_labels_are_named() -> None:
    targets, data, faults, _ = ClassTarget().fit(["caf\udce9", "tea", "tea", "tea"], ALL, None)
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
        ClassTarget().fit([f"{k}.5" for k in range(30)], train, None)
    for cells in ([str(k) for k in range(30)], [f"{k % 10}.5" for k in range(30)], [f"{k}.5a" for k in range(30)]):
        assert ClassTarget().fit(cells, train, None).data.classes


CAFE = ("caf\u00e9", "cafe\u0301")  # composed, decomposed


def test_composed_and_decomposed_names_are_one_class() -> None:
    targets, data, faults, _ = ClassTarget().fit([*CAFE, "tea", CAFE[1]], np.array([True, True, True, False]), None)
    assert targets.tolist() == [0, 0, 1, 0]
    assert data.classes == (CAFE[0], "tea")
    assert data.facts["counts"] == [2, 1]
    assert not faults


def test_a_model_that_knows_the_decomposed_name() -> None:
    known = TargetData(kind="class", classes=(CAFE[1], "tea"))
    targets, data, *_ = ClassTarget().fit([*CAFE, "tea", ""], ALL, known)
    assert targets.tolist() == [0, 0, 1, IGNORE]
    assert data.classes == known.classes
    both = TargetData(kind="class", classes=CAFE)  # trained before names were composed
    assert ClassTarget().fit([*CAFE], ALL[:2], both).values.tolist() == [0, 0]


@pytest.mark.parametrize(
    ("names", "forms"),
    [
        (["0", "0.0", "1e0", "2.5"], ["0", "0", "1", "2.5"]),
        (["1.0", "1.00"], ["1", "1"]),
        (["0.5", "1.0", "2"], ["0.5", "1", "2"]),
        (["1.0", "2.0", "2.5"], ["1.0", "2.0", "2.5"]),  # of one form already
        (["-1", "-1.0", "-0.0", "0"], ["-1", "-1", "0", "0"]),
        (["01", "1", "1.0"], ["01", "1", "1.0"]),  # codes, not numbers
        (["+1", "1", "1.0"], ["+1", "1", "1.0"]),
        (["x", "1", "1.0"], ["x", "1", "1.0"]),
        (["3.1", "3.10"], ["3.1", "3.10"]),  # versions
        (["1e400", "nan"], ["1e400", "nan"]),
        (
            ["9007199254740993.0", "1", "1.0"],
            ["9007199254740993.0", "1", "1"],
        ),  # beyond 2**53
        ([], []),
    ],
)
def test_one_form_of_numbers(names: list[str], forms: list[str]) -> None:
    assert one_form(names) == dict(zip(names, forms))


def test_integers_in_two_forms_are_one_class() -> None:
    cells = ["0", "1", "0.0", "1e0"]
    targets, data, faults, _ = ClassTarget().fit(cells, ALL, None)
    assert (targets.tolist(), data.classes, faults) == ([0, 1, 0, 1], ("0", "1"), {})
    known = TargetData(kind="class", classes=("0.0", "1.0"))
    assert ClassTarget().fit(cells, ALL, known).values.tolist() == [0, 1, 0, 1]
    train = np.array([True, True, False, False])  # of other rows alone: the classes are those of training rows
    assert ClassTarget().fit(["0.0", "1.0", "0", "1"], train, None).values.tolist() == [0, 1, 0, 1]
    assert list(ClassTarget().fit(["01", "1", "1.0", "1"], train, None).faults) == [2]


def test_other_spellings_of_a_class() -> None:
    index = ClassIndex(["1", "2.0", CAFE[1]], first=1)
    assert [index.place(name) for name in ("1", "2.0", *CAFE, "2", "1.0")] == [1, 2, 3, 3, None, None]


def test_probable_duplicates_are_named_with_their_rows() -> None:
    counts = {
        "red": 3,
        "RED": 1,
        "blue": 5,
        "\uff22lue": 2,
        "New York": 1,
        "New  York": 1,
        "x": 1,
        "Y\u200b": 1,
        "y": 1,
    }
    lines = probable_duplicates(counts)
    assert lines[0] == "'red' (3 rows), 'RED' (1 rows) are 2 classes; if they mean one, spell them alike"
    assert [line.split(" (")[0] for line in lines] == ["'red'", "'blue'", "'New York'", "'Y\\u200b'"]
    assert len(probable_duplicates({"01": 1, "1": 1, "1.0": 2})) == 1
    assert probable_duplicates({"a": 1, "b": 1, "ß": 1, "s": 1}) == []
    many = probable_duplicates({f"{case}{i}": 1 for i in range(30) for case in "aA"})
    assert len(many) == 11
    assert many[-1] == "20 more names of classes have several spellings"


def test_nearly_all_numbers_or_dates_are_no_classes() -> None:
    numbers = [f"{k / 3:.2f}" for k in range(30)]
    with pytest.raises(
        ValueError, match=r"got 30 different numbers, .* \(and 1 that are none, such as 'NA'\), wanted c"
    ):
        ClassTarget().fit([*numbers, "NA"], np.ones(31, bool), None)
    dates = [f"2024-01-{k:02}" for k in range(1, 31)]
    with pytest.raises(ValueError, match="got 30 different dates or times, such as 2024-01-01, each of which would be"):
        ClassTarget().fit(dates, np.ones(30, bool), None)
    codes = [f"{k}" for k in range(30)]
    assert len(ClassTarget().fit([*codes, "x"], np.ones(31, bool), None).data.classes) == 31
