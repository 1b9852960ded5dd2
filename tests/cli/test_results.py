"""What a run leaves behind is written in an order in which nothing costs a number."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from matplotlib.figure import Figure

from mm.cli import _results


class Torn(Figure):
    def savefig(self, *args: Any, **kwargs: Any) -> None:
        raise RuntimeError("ParseSyntaxException\nof several lines")


def broken() -> Figure:
    raise MemoryError("4.4 GB")


def test_a_picture_that_fails_costs_no_number(tmp_path: Path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    task = SimpleNamespace(directions=dict, figures={"test/a": Torn(), "test/b": broken, "test/c": Figure}, decoded={})
    saved = _results.save(tmp_path, {"test/accuracy": 0.5}, task, SimpleNamespace(faults={}), [], truth=True)
    assert json.loads(saved["metrics"].read_text(encoding="utf-8")) == {"test/accuracy": 0.5}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["metrics.directions.json", "metrics.json", "test_c.png"]
    assert list(saved) == ["metrics", "test_c"]
    assert capsys.readouterr().err.splitlines() == [
        "test_a.png could not be drawn: RuntimeError: ParseSyntaxException",
        "test_b.png could not be drawn: MemoryError: 4.4 GB",
    ]


@pytest.mark.parametrize("fails", ["write_predictions", "write_figures"])
def test_metrics_are_written_before_all_else(tmp_path, monkeypatch, fails):
    def fail(*args: Any, **kwargs: Any) -> None:
        raise KeyError(fails)

    monkeypatch.setattr(_results, fails, fail)
    task = SimpleNamespace(directions=dict, figures={}, decoded={})
    table = SimpleNamespace(ids=["a"], targets={})
    data = SimpleNamespace(faults={}, table=table)
    with pytest.raises(KeyError):
        _results.save(tmp_path, {"test/accuracy": 0.5}, task, data, [0], truth=False)
    assert json.loads((tmp_path / "metrics.json").read_text(encoding="utf-8")) == {"test/accuracy": 0.5}
