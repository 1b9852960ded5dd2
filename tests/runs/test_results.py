"""What a run leaves behind: written in an order in which nothing costs a number; predictions a block at a time."""

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
    table = SimpleNamespace(ids=[f"r{row}" for row in range(ROWS)], targets={"mood": None, "tags": None})
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
        columns["mood/truth"] = [None if row < 12 else "up" for row in range(1, ROWS)]
        columns["tags/truth"] = [[] if row < 25 else ["a", "b"] for row in range(1, ROWS)]
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
    results.write_predictions(path, datamodule(faults), list(range(1, ROWS)), answers, truth)
    pyarrow.parquet.write_table(expected(faults, truth), tmp_path / "one.parquet")
    found, wanted = (pyarrow.parquet.read_table(tmp_path / f"{name}.parquet") for name in ("predictions", "one"))
    assert found.schema.equals(wanted.schema, check_metadata=True)
    assert found.to_pylist() == wanted.to_pylist()


def test_no_row_is_a_file_without_rows(tmp_path):
    path = tmp_path / "predictions.parquet"
    results.write_predictions(path, datamodule({}), [], Answers(tmp_path), truth=True)
    found = pyarrow.parquet.read_table(path)
    assert found.column_names == ["id", "row", "error", "mood/truth", "tags/truth"] and len(found) == 0


def gather(rank, folder):
    torch.distributed.init_process_group("gloo", rank=rank, world_size=2)
    task = SimpleNamespace(decoded=Answers(folder, 12))
    for row in range(rank, ROWS, 2):
        if row != 3:
            task.decoded.add(row, answer(row))
    data = datamodule({(3, "text"): "torn"} if rank else {})
    gather_processes(SimpleNamespace(world_size=2, is_global_zero=rank == 0), task, data)
    if rank == 0:
        results.write_predictions(folder / "predictions.parquet", data, list(range(1, ROWS)), task.decoded, True)
    else:
        assert list(task.decoded) == []


def test_two_processes_write_what_one_does(tmp_path):
    run_two(gather, tmp_path)
    found, wanted = pyarrow.parquet.read_table(tmp_path / "predictions.parquet"), expected({(3, "text"): "torn"}, True)
    assert found.column_names == wanted.column_names
    assert found.to_pylist() == wanted.to_pylist()
    assert [path.name for path in tmp_path.iterdir()] == ["predictions.parquet"]
