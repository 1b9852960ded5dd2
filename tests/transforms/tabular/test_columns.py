"""What is found of a table's columns, beside numbers worked by hand."""

import math
from dataclasses import replace
from datetime import date

import numpy as np
import pytest

from mm.transforms.tabular.columns import check_column, column_data, find_column, plain, told
from mm.transforms.tabular.kinds import check_names
from mm.transforms.tabular.row import TabularTransform
from mm.types import ColumnData

AGE = ColumnData(name="age")


def find(given, cells):
    return find_column(given, cells, np.ones(len(cells), bool))


@pytest.mark.parametrize(
    ("cells", "kind", "classes"),
    [
        (["1", "2.5", "-3e1", ""], "number", ()),
        ([1, 2, None, 4.0], "number", ()),
        (["1", "2", "b"], "category", ("1", "2", "b")),
        (["10", "9", "x9"], "category", ("10", "9", "x9")),
        ([True, False], "category", ("False", "True")),
        ([["b", "a"], ["b"], [], None], "list", ("a", "b")),
        (['["b", 2]', "[10]", ""], "list", ("10", "2", "b")),
        (["[1", "[2]"], "category", ("[1", "[2]")),
        ([[10, 9.0]], "list", ("9", "10")),
    ],
)
def test_kind_and_classes(cells, kind, classes):
    found, faults = find(AGE, cells)
    assert column_data(plain(found)) == found
    assert not faults
    assert (found.kind, found.classes) == (kind, classes)


def test_mean_and_deviation():
    found, _ = find(AGE, ["1", "2", "", "6"])
    assert (found.mean, found.std) == (3.0, pytest.approx(math.sqrt(14 / 3)))
    assert find(AGE, ["2", "2"])[0].std == 1.0


def test_only_training_rows_are_learnt_from():
    train = np.array([True, False, True])
    assert find_column(AGE, ["a", "b", "c"], train)[0].classes == ("a", "c")
    number, faults = find_column(AGE, ["1", "x", "3"], train)
    assert (number.kind, number.mean, faults) == ("number", 2.0, {1: "got 'x', wanted a number"})


def test_what_the_user_names_wins():
    assert find(ColumnData(name="zip", kind="category"), ["10", "9"])[0].classes == ("9", "10")
    assert find(ColumnData(name="likes", separator="|"), ["b|a", " c | a"])[0].classes == ("a", "b", "c")
    number, faults = find(ColumnData(name="age", kind="number"), ["1", "x", "3"])
    assert (number.mean, faults) == (2.0, {1: "got 'x', wanted a number"})
    likes, faults = find(ColumnData(name="likes", kind="list"), ['["a"]', "b", ["\udcff"]])
    assert likes.classes == ("a",)
    assert "wanted a list; name what stands between" in faults[1]
    assert "not valid UTF-8" in faults[2]


def test_a_number_that_is_none_is_told():
    cells = [*map(str, range(50)), "NA", *map(str, range(29))]
    told_of = (
        r"^column 'age': 79 of 80 cells are numbers; 'NA' \(row 50\) is not. Mend them \(it is a usual spelling of a "
        r"missing value: leave the cell empty\), or set {column: age, kind: number} \(then each is a fault of its row, "
        r"and datamodule.on_error=missing takes it as empty\), or, if these are names, {column: age, kind: category}$"
    )
    with pytest.raises(ValueError, match=told_of):
        find(AGE, cells)
    number, faults = find(ColumnData(name="age", kind="number"), cells)
    assert number.kind == "number" and list(faults) == [50]
    assert find(ColumnData(name="age", kind="category"), cells)[0].kind == "category"
    assert told(find(AGE, ["a", "b", "1"])[0], ["a", "b", "1"]) == "age is one of 3 classes"


NUMBERS = [f"{k / 3:.2f}" for k in range(30)]


@pytest.mark.parametrize(
    ("cells", "said"),
    [
        (["inf", *NUMBERS], r"'inf' \(row 0\) is not. Mend them \(leave the cell empty, or write a number\)"),
        (["3,5", *NUMBERS], r"30 of 31 cells are numbers; '3,5' .*write a decimal point, not a comma"),
        (
            ["1.234,5", "3,5", "4"],
            r"1 of 3 .*'1.234,5' .* 1 more are not \(such as '3,5'\).*lists, {.* separator: ','}",
        ),
        (["12,345", *NUMBERS], "write thousands without commas"),
        (["5 kg", *NUMBERS], "write the number without its unit"),
        (["$5", *NUMBERS], "write the number without its unit"),
        (["old", *NUMBERS], r"'old' \(row 0\) is not. Mend them, or set"),
        (
            ["NA", "?", "-"] * 20 + ["1", "2"],
            r"2 of 62 cells are numbers; 'NA' \(row 0\) and 59 more are not \(such as",
        ),
        (["null", *NUMBERS], "a usual spelling of a missing value"),
        ([None, "#N/A", *NUMBERS], r"'#N/A' \(row 1\) is not"),
        ([float("inf"), *range(30)], r"'inf' \(row 0\) is not"),
        (
            [f"2024-01-{k:02}" for k in range(1, 31)],
            r"30 of 30 cells are dates or times, such as '2024-01-01' \(row 0\)",
        ),
        ([f"{k}.12.2023" for k in range(1, 31)] + ["NA"], "30 of 31 cells are dates .* days since a date"),
        ([f"2024-01-02 03:{k}:00" for k in range(10, 50)], "40 of them differ: each would be a class of its own"),
        ([date(2024, 1, k) for k in range(1, 31)], "such as '2024-01-01'"),
    ],
)
def test_columns_that_are_nearly_numbers(cells, said):
    with pytest.raises(ValueError, match=said):
        find(AGE, cells)


@pytest.mark.parametrize(
    "cells",
    [
        ["red", "blue", "NA"] * 9,
        ["12", "12A", "14", "b", "c", "d"],
        ["2024-01-01", "2024-01-02"] * 20,
        ["12A", "3b", "14c"],
        [True, False, None],
        ["NA", "?"],
    ],
)
def test_columns_of_names(cells):
    assert find(AGE, cells)[0].kind == "category"


def test_what_is_odd_about_names_is_told():
    ids = [f"user{k}" for k in range(12)]
    assert "12 classes, as many as there are cells: is it an identifier?" in told(find(AGE, ids)[0], ids)
    cells = ["red", "NA", "red", "NA"]
    assert "'NA' is one of them: leave cells empty where nothing is known" in told(find(AGE, cells)[0], cells)


def test_a_column_of_many_names_is_soon_known_as_such():
    looked = []

    class Text(str):
        def casefold(self):
            looked.append(self)
            return super().casefold()

    cells = [Text(f"name {k}") for k in range(1000)]
    check_names("age", cells, range(1000), "row {}".format)
    assert len(looked) == 101


@pytest.mark.parametrize(
    ("cells", "said"),
    [(["", None, []], "no training row has a cell"), ([["a"], "b"], "has 'b' beside lists")],
)
def test_nothing_can_be_found(cells, said):
    with pytest.raises(ValueError, match=said):
        find(AGE, cells)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"kind": "numbers"}, "got kind 'numbers' of 'a', wanted one of number, category, list; did you mean 'number'"),
        ({"separator": ""}, "is for lists, and no empty text"),
        ({"kind": "number", "separator": "|"}, "is for lists"),
    ],
)
def test_what_the_user_can_not_name(given, said):
    with pytest.raises(ValueError, match=said):
        check_column(ColumnData(name="a", **given), "datamodule.columns.tabular")


def test_spellings_of_a_category(printed_log):
    city = ColumnData(name="city", kind="category")
    found, faults = find(city, ["caf\u00e9", "cafe\u0301", "Bern", "bern"])
    assert (found.classes, faults) == (("Bern", "bern", "caf\u00e9"), {})
    assert printed_log.readouterr().out.startswith("column 'city': 'Bern' (1 rows), 'bern' (1 rows) are 2 classes")
    found, _ = find(city, ["1", "1.0", "2.0", "2e0"])
    assert found.classes == ("1", "2")
    row = TabularTransform([found, replace(city, name="old", classes=("cafe\u0301",))])
    assert row({"city": "2.0", "old": "caf\u00e9"}).windows[0][:, 1].tolist() == [2, 1]
    assert row({"city": "3.0", "old": "tea"}).unknown
    lists, _ = find(ColumnData(name="likes"), [["cafe\u0301"], ["caf\u00e9", "1.0"]])
    assert lists.classes == ("1.0", "caf\u00e9")
    assert TabularTransform([lists])({"likes": ["cafe\u0301", "1.0"]}).windows[0][:, 1].tolist() == [2, 1]


def test_equal_numbers_have_no_deviation():
    assert find(AGE, ["0.1"] * 60)[0].std == 1.0
    found, _ = find(AGE, [str(1_700_000_000 + i) for i in range(60)])
    numbers = TabularTransform([found])({"age": "1700000059"}).windows[0][0, 2]
    assert numbers.item() == pytest.approx((59 - 29.5) / np.arange(60).std())
