"""Reports print, render in a notebook and write files."""

import csv
import io
import json

import pytest

from mm.reports import Report, Table


class Accuracy(Report):
    def __init__(self, value: float):
        self.metrics = {"test/accuracy": value}

    def table(self) -> Table:
        return Table(["metric", "value"], list(self.metrics.items()))


def test_table_aligns_numbers_to_the_right():
    table = Table(["metric", "value"], [["accuracy", 0.123456], ["nll", 12]], title="test")
    assert str(table).splitlines() == ["test", "metric     value", "accuracy  0.1235", "nll           12"]


def test_row_of_another_length_is_an_error():
    with pytest.raises(ValueError, match="row 1: got 1 cells, wanted 2"):
        Table(["a", "b"], [[1, 2], [3]])


def test_html_is_escaped():
    assert "<script>" not in Table(["<script>"], [["<script>"]], title="<script>")._repr_html_()


def test_csv_keeps_every_digit():
    value = 1 / 3
    (row,) = csv.DictReader(io.StringIO(Table(["name", "value"], [["a,b", value]]).to_csv()))
    assert (row["name"], float(row["value"])) == ("a,b", value)


def test_dicts_are_the_rows():
    assert Table(["a", "b"], [[1, None]]).to_dicts() == [{"a": 1, "b": None}]


def test_report_saves_its_metrics(tmp_path):
    folder = Accuracy(0.5).save(tmp_path / "new" / "folder")
    assert json.loads((folder / "metrics.json").read_text()) == {"test/accuracy": 0.5}


def test_report_prints_its_table():
    assert repr(Accuracy(0.5)).splitlines() == ["Accuracy", "metric         value", "test/accuracy    0.5"]


def test_figure_of_a_report_without_one_is_an_error():
    with pytest.raises(ValueError, match="Accuracy has no figure"):
        Accuracy(0.5).figure()


def test_metric_that_is_not_finite_is_saved_as_null(tmp_path):
    text = (Accuracy(float("nan")).save(tmp_path) / "metrics.json").read_text(encoding="utf-8")
    assert json.loads(text, parse_constant=pytest.fail) == {"test/accuracy": None}
