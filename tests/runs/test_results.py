"""What a run leaves behind: written in an order in which nothing costs a number; predictions a block at a time."""

import csv
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
import torch
from matplotlib.figure import Figure
from processes import run_two

from mm import arrow
from mm.assembly.fitting import gather as gather_processes
from mm.runs import results
from mm.runs.prediction_files import name_true_columns, write_predictions, write_table
from mm.tasks.answers import Answers


class Torn(Figure):
    def savefig(self, *args: Any, **kwargs: Any) -> None:
        raise RuntimeError("ParseSyntaxException\nof several lines")


def broken() -> Figure:
    raise MemoryError("4.4 GB")


def test_a_picture_that_fails_costs_no_number(tmp_path: Path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    task = SimpleNamespace(directions=dict, figures={"test/a": Torn(), "test/b": broken, "test/c": Figure}, decoded={})
    saved = results.save_results(tmp_path, {"test/accuracy": 0.5}, task, SimpleNamespace(faults={}), [], truth=True)
    assert json.loads(saved["metrics"].read_text(encoding="utf-8")) == {"test/accuracy": 0.5}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["metrics.directions.json", "metrics.json", "test_c.png"]
    assert list(saved) == ["metrics", "test_c"]
    assert caplog.messages == [
        "test_a.png could not be drawn: RuntimeError: ParseSyntaxException",
        "test_b.png could not be drawn: MemoryError: 4.4 GB",
    ]


@pytest.mark.parametrize("fails", ["write_predictions", "write_figures"])
def test_metrics_are_written_before_all_else(tmp_path, monkeypatch, fails):
    def fail(*args: Any, **kwargs: Any) -> None:
        raise KeyError(fails)

    monkeypatch.setattr(results, fails, fail)
    task = SimpleNamespace(directions=dict, figures={}, decoded=Answers(tmp_path))
    table = SimpleNamespace(ids=["a"], targets={})
    data = SimpleNamespace(faults={}, table=table)
    with pytest.raises(KeyError):
        results.save_results(tmp_path, {"test/accuracy": 0.5}, task, data, [0], truth=False)
    assert json.loads((tmp_path / "metrics.json").read_text(encoding="utf-8")) == {"test/accuracy": 0.5}


ROWS = 30


def datamodule(faults):
    """Of rows of which some are without a label."""
    ids = [f"r{row}" for row in range(ROWS)]
    table = SimpleNamespace(ids=ids, targets={"mood": None, "tags": None}, origins=[], columns={"mood": "feeling"})
    truths = {
        "mood": [None if row < 12 else "up" for row in range(ROWS)],
        "tags": [[] if row < 25 else ["a", "b"] for row in range(ROWS)],
    }
    return SimpleNamespace(table=table, faults=faults, notes=set(), truth=lambda name, row: truths[name][row])


def answer(row):
    return {"mood": {"prediction": "up", "probability": {"up": row / ROWS, "down": 1 - row / ROWS}}}


def expected(faults, truth):
    """The file as one table."""
    columns = {
        "id": [f"r{row}" for row in range(1, ROWS)],
        "row": list(range(1, ROWS)),
        "error": [f"text: {faults[row, 'text']}" if (row, "text") in faults else None for row in range(1, ROWS)],
        "mood/prediction": [None if row == 3 else "up" for row in range(1, ROWS)],
        "mood/probability/up": [None if row == 3 else row / ROWS for row in range(1, ROWS)],
        "mood/probability/down": [None if row == 3 else 1 - row / ROWS for row in range(1, ROWS)],
    }
    if truth:
        columns["feeling"] = [None if row < 12 else "up" for row in range(1, ROWS)]
        columns["tags"] = [[] if row < 25 else ["a", "b"] for row in range(1, ROWS)]
    return pyarrow.table(columns)


@pytest.mark.parametrize("truth", [True, False])
@pytest.mark.parametrize("faults", [{}, {(3, "text"): "torn"}])
@pytest.mark.parametrize("limit", [12, 10**6])
def test_blocks_are_one_table(tmp_path, monkeypatch, truth, faults, limit):
    monkeypatch.setattr(arrow, "BLOCK", 7)
    answers = Answers(tmp_path, limit)
    for row in [*range(20, ROWS), *range(20)]:
        if row != 3:
            answers.add(row, answer(row))
    path = tmp_path / "predictions.parquet"
    write_predictions(path, datamodule(faults), list(range(1, ROWS)), answers, truth)
    pyarrow.parquet.write_table(expected(faults, truth), tmp_path / "one.parquet")
    found, wanted = (pyarrow.parquet.read_table(tmp_path / f"{name}.parquet") for name in ("predictions", "one"))
    assert found.schema.equals(wanted.schema, check_metadata=True)
    assert found.to_pylist() == wanted.to_pylist()


@pytest.mark.parametrize("block", [1, 30])
def test_csv_holds_lists_as_json_and_nulls_as_nothing(tmp_path, block):
    answers = Answers(tmp_path, 12 if block == 1 else 10**6)
    for row in range(1, 30):
        answers.add(row, {"mood": {"prediction": ["up", 'a "b", c'] if row % 2 else None, "probability": row / ROWS}})
    path = tmp_path / "predictions.csv"
    write_predictions(path, datamodule({(3, "text"): "torn, and more"}), list(range(1, ROWS)), answers, truth=True)
    with path.open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    assert list(lines[0]) == ["id", "row", "error", "mood/prediction", "mood/probability", "feeling", "tags"]
    assert len(lines) == ROWS - 1
    assert json.loads(lines[0]["mood/prediction"]) == ["up", 'a "b", c']
    assert lines[1]["mood/prediction"] == ""
    assert lines[2]["error"] == "text: torn, and more"
    assert float(lines[4]["mood/probability"]) == 5 / ROWS
    assert (lines[0]["feeling"], lines[20]["feeling"], json.loads(lines[28]["tags"])) == ("", "up", ["a", "b"])
    whole = pyarrow.table({"id": ["a", None], "prediction": [["x"], None], "error": pyarrow.nulls(2)})
    write_table(tmp_path / "whole.csv", whole)
    assert (tmp_path / "whole.csv").read_text().splitlines()[1:] == ['"a","[""x""]",', ",,"]


@pytest.mark.parametrize(
    ("columns", "taken", "wanted"),
    [
        ({"target": "sentiment"}, ["target/prediction"], "sentiment"),
        ({}, ["target/prediction"], "target"),
        ({"target": "id"}, [], "target/truth"),
        ({"target": "target/prediction"}, ["target/prediction"], "target/truth"),
    ],
)
def test_the_true_value_has_the_name_of_the_users_column(columns, taken, wanted):
    table = SimpleNamespace(targets={"target": None}, origins=[], columns=columns)
    assert name_true_columns(table, taken) == {"target": wanted}


def test_files_that_call_a_column_differently_have_the_name_of_the_target():
    files = [SimpleNamespace(columns={"target": name}) for name in ("a", "b")]
    table = SimpleNamespace(targets={"target": None}, origins=files, columns={})
    assert name_true_columns(table, []) == {"target": "target"}
    table.origins = files[:1] * 2
    assert name_true_columns(table, []) == {"target": "a"}


def test_no_row_is_a_file_without_rows(tmp_path):
    path = tmp_path / "predictions.parquet"
    write_predictions(path, datamodule({}), [], Answers(tmp_path), truth=True)
    found = pyarrow.parquet.read_table(path)
    assert found.column_names == ["id", "row", "error", "feeling", "tags"] and len(found) == 0


def gather(rank, folder):
    torch.distributed.init_process_group("gloo", rank=rank, world_size=2)
    task = SimpleNamespace(decoded=Answers(folder, 12))
    for row in range(rank, ROWS, 2):
        if row != 3:
            task.decoded.add(row, answer(row))
    data = datamodule({(3, "text"): "torn"} if rank else {})
    gather_processes(SimpleNamespace(world_size=2, is_global_zero=rank == 0), task, data)
    if rank == 0:
        write_predictions(folder / "predictions.parquet", data, list(range(1, ROWS)), task.decoded, True)
    else:
        assert list(task.decoded) == []


def test_two_processes_write_what_one_does(tmp_path):
    run_two(gather, tmp_path)
    found, wanted = pyarrow.parquet.read_table(tmp_path / "predictions.parquet"), expected({(3, "text"): "torn"}, True)
    assert found.column_names == wanted.column_names
    assert found.to_pylist() == wanted.to_pylist()
    assert [path.name for path in tmp_path.iterdir()] == ["predictions.parquet"]
