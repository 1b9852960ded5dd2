"""The ranked table of runs."""

import json
import statistics
from pathlib import Path

import pytest
import yaml

from mm.cli import compare
from mm.runs.results import write_metrics


def write(folder: Path, overrides: list[str], metrics: dict | None, path: str = "a.csv", verb: str = "train") -> None:
    folder.mkdir(parents=True)
    (folder / "overrides.yaml").write_text(f"# mm {verb}\n{yaml.safe_dump(overrides)}")
    if verb == "train":
        data = {"_target_": "mm.datamodules.manifest.Manifest", "path": path}
        (folder / "config.yaml").write_text(yaml.safe_dump({"datamodule": data}))
    if metrics is not None:
        (folder / "metrics.json").write_text(json.dumps(metrics))


def rows(out: str) -> list[list[str]]:
    """Cells of the tables' lines."""
    return [[cell.strip() for cell in line.strip("│").split("│")] for line in out.splitlines() if line.startswith("│")]


def test_seeds_are_one_row_with_their_runs(mm):
    values = {("gated", 1): 0.8, ("gated", 2): 0.9, ("concat", 1): 0.95, ("concat", 2): 0.97}
    for job, ((fusion, seed), value) in enumerate(values.items()):
        overrides = ["datamodule=manifest", f"model/fusion={fusion}", f"seed={seed}", f"run='s/{job}'"]
        write(Path(f"outputs/s/{job}"), overrides, {"test/accuracy": value, "test/loss": 1 - value})
    write(Path("outputs/s/4"), ["seed=3"], None)
    write(Path("outputs/s/vectors"), ["checkpoint=outputs/s/0/model"], None, verb="embed")  # has none to leave
    ran = mm("compare", "outputs/s")
    assert ran.status == 0, ran.err
    mean, deviation = statistics.mean([0.8, 0.9]), statistics.stdev([0.8, 0.9])
    first, second = rows(ran.out)
    assert first[:2] == ["model/fusion=concat", "2: 2, 3"]
    assert second[:3] == ["model/fusion=gated", "2: 0, 1", f"{mean:.4f} ± {deviation:.4f}"]
    assert "all: datamodule=manifest" in ran.out
    assert ran.out.splitlines()[-1] == "not finished: 4"


def test_brackets_are_shown_as_they_are(mm):
    for name in ("a[b]", "c"):
        write(Path("outputs") / name, [f"callbacks=[default,{name[0]}]"], {"test/accuracy": 0.5, "test[a]/accuracy": 1})
    ran = mm("compare", "outputs", "metrics=test[a]/accuracy")
    assert "test[a]/accuracy" in ran.out
    assert sorted(cells[:2] for cells in rows(ran.out)) == [
        ["callbacks=[default,a]", "1: a[b]"],
        ["callbacks=[default,c]", "1: c"],
    ]


def test_some_runs_of_a_folder_beside_each_other(mm):
    for name, value in (("a", 0.5), ("b", 0.7), ("c", 0.6)):
        write(Path(f"outputs/{name}"), [f"model/fusion={name}"], {"test/accuracy": value})
    ran = mm("compare", "outputs/a", "outputs/b")
    assert ran.status == 0, ran.err
    assert rows(ran.out) == [["model/fusion=b", "1: b", "0.7000"], ["model/fusion=a", "1: a", "0.5000"]]
    every = mm("compare", "outputs", "outputs/a")  # which lies in the first: it counts once
    assert [cells[1] for cells in rows(every.out)] == ["1: b", "1: c", "1: a"]
    assert "no folder outputs/d" in mm("compare", "outputs/a", "outputs/d").err


def test_verbs_and_data_are_ranked_apart(mm):
    for job, path in enumerate(("a.csv", "b.csv", "a.csv")):
        write(Path(f"outputs/{job}"), [f"datamodule.path={path}", "seed=0"], {"test/accuracy": 0.5}, path)
    overrides = ["checkpoint=outputs/0/model", "datamodule=manifest", "datamodule.path=c.csv"]
    write(Path("outputs/e"), overrides, {"test/accuracy": 0.9}, verb="evaluate")
    write(Path("outputs/p"), overrides, {"data/rows": 3}, verb="predict")
    ran = mm("compare", "outputs")
    assert ran.status == 0, ran.err
    titles = [line for line in ran.out.splitlines() if " on " in line]
    assert titles == ["evaluate on c.csv:", "predict on c.csv:", "train on Manifest a.csv:", "train on Manifest b.csv:"]
    assert [row[1] for row in rows(ran.out)] == ["1: e", "1: p", "2: 0, 2", "1: 1"]


def test_what_is_not_there_is_told(mm):
    write(Path("outputs/s/0"), ["seed=0"], None)
    assert "no run below it has a metrics.json yet" in mm("compare", "outputs/s").err
    (Path("outputs/s/0") / "metrics.json").write_text('{"test/accuracy": 1.0}')
    wrong = mm("compare", "outputs/s", "metrics=test/acuracy")
    assert wrong.status == 2
    assert "did you mean 'test/accuracy'" in wrong.err
    assert "no folder" in mm("compare", "outputs/t").err


@pytest.mark.parametrize("where", ["outputs/0", "outputs"])
def test_a_runs_own_folder_will_do(mm, where):
    write(Path("outputs/0"), ["seed=0"], {"test/accuracy": 0.25})
    ran = mm("compare", where)
    assert rows(ran.out)[0][1:] == ["1: 0", "0.2500"]


def test_a_folder_may_have_an_equals_sign(mm):
    write(Path("outputs/lr=0.1/0"), ["seed=0"], {"test/accuracy": 0.5})
    ran = mm("compare", "outputs/lr=0.1", "metrics=test/accuracy")
    assert ran.status == 0, ran.err
    assert [row[1] for row in rows(ran.out)] == ["1: 0"]
    assert "usage: mm compare" in mm("compare", "outputs/lr=0.1", "metric=test/accuracy").err


@pytest.mark.parametrize("metric", ["wer", "cer", "nll", "mse", "perplexity", "median_rank", "loss"])
def test_of_errors_the_lowest_is_on_top(metric: str, tmp_path: Path, capsys) -> None:
    for job, value in enumerate((0.9, 0.1)):
        write(tmp_path / f"{job}", [f"seed={job}", f"x={job}"], {f"test/{metric}": value})
    compare.main([str(tmp_path), f"metrics=test/{metric}"])
    assert [row[2] for row in rows(capsys.readouterr().out)] == ["0.1000", "0.9000"]


def test_a_direction_that_a_run_has_written_wins(tmp_path: Path, capsys) -> None:
    """The metric object knows; its name may say the opposite, or nothing."""
    for name, lower in (("test/novel", True), ("test/wer", False)):
        for job, value in enumerate((0.9, 0.1)):
            folder = tmp_path / name[5:] / f"{job}"
            write(folder, [f"x={job}"], None)
            write_metrics(folder, {name: value, "test/rows": 3.0}, {name: not lower, "test/rows": None})
            assert json.loads((folder / "metrics.json").read_text()) == {name: value, "test/rows": 3.0}
            assert json.loads((folder / "metrics.directions.json").read_text()) == {name: not lower}
        compare.main([str(tmp_path / name[5:]), f"metrics={name}"])
        first = rows(capsys.readouterr().out)[0][2]
        assert first == ("0.1000" if lower else "0.9000")
