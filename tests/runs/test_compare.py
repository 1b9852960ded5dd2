"""Runs are compared by their settings, averaged over seeds, splits and folds."""

import json
import statistics
from pathlib import Path

import pytest
import yaml

from mm.runs.compare import compare


def write(folder: Path, overrides: list[str], accuracy: float | None, path: str = "a.csv") -> None:
    folder.mkdir(parents=True)
    (folder / "overrides.yaml").write_text(f"# mm train\n{yaml.safe_dump(overrides)}")
    data = {"_target_": "mm.datamodules.manifest.Manifest", "path": path}
    (folder / "config.yaml").write_text(yaml.safe_dump({"datamodule": data}))
    if accuracy is not None:
        (folder / "metrics.json").write_text(json.dumps({"test/accuracy": accuracy, "test/loss": 1 - accuracy}))


def test_seeds_and_splits_are_averaged(tmp_path):
    values = {}
    for fusion, better in (("gated", 0.5), ("concat", 0.0)):
        for seed in range(2):
            for split in range(3):
                value = values[fusion, seed, split] = better + 0.1 * seed + 0.01 * split
                words = [f"model/fusion={fusion}", f"seed={seed}", f"datamodule.split.seed={split}", "batch=4"]
                write(tmp_path / f"{fusion}-{seed}-{split}", words, value)
    (ranking,) = compare(tmp_path, ["test/accuracy"]).rankings
    assert ranking.common == ("batch=4",)
    assert ranking.averaged == ("datamodule.split.seed", "seed")
    first, second = ranking.settings
    assert first.overrides == ("model/fusion=gated",) and second.overrides == ("model/fusion=concat",)
    gated = [value for (fusion, *_), value in values.items() if fusion == "gated"]
    assert first.mean("test/accuracy") == pytest.approx(statistics.mean(gated))
    assert first.deviation("test/accuracy") == pytest.approx(statistics.stdev(gated))
    assert len(first.folders) == 6


@pytest.mark.parametrize("by", ["column", "file", "number", "key", "added key"])
def test_folds_are_averaged(tmp_path, by):
    for fold in range(3):
        for lr in (1, 2):
            path = {"file": f"part{'abc'[fold]}.csv", "number": f"my/fold_{fold}/rows.csv"}.get(by, "a.csv")
            own = {
                "column": f"datamodule.columns.split=fold{fold}",
                "key": f"datamodule.test_fold={fold}",
                "added key": f"+datamodule.fold={fold}",
            }.get(by, f"datamodule.path={path}")
            write(tmp_path / f"{fold}-{lr}", [own, f"task.lr={lr}"], 0.1 * fold + lr / 10, path)
    report = compare([tmp_path], average=["datamodule.path"] if by == "file" else [])
    (ranking,) = report.rankings
    assert ranking.averaged == (own.partition("=")[0].lstrip("+"),)
    assert ranking.settings[0].deviation("test/accuracy") == pytest.approx(0.1)
    assert [setting.overrides for setting in ranking.settings] == [("task.lr=2",), ("task.lr=1",)]
    assert ranking.settings[0].mean("test/accuracy") == pytest.approx(0.3)
    assert report.metrics == {
        "test/accuracy": pytest.approx(0.3),
        "test/loss": pytest.approx(0.7),
    }
    if by == "file":
        assert len(compare(tmp_path).rankings) == 3  # else each file is data of its own


@pytest.mark.parametrize("key", ["datamodule.folder", "model.unfold", "data.num_folds", "datamodule.path=manifold"])
def test_what_is_no_fold_is_not_averaged(tmp_path, key):
    for value in (1, 2):
        word = f"{key}{value}.csv" if "=" in key else f"{key}={value}"
        path = word.partition("=")[2] if "=" in key else "a.csv"
        write(tmp_path / str(value), [word], value / 10, path)
    rankings = compare(tmp_path).rankings
    assert sum(len(ranking.settings) for ranking in rankings) == 2


def test_a_report_has_a_table_and_is_saved(tmp_path):
    write(tmp_path / "s/0", ["seed=0", "x=1"], 0.5)
    write(tmp_path / "s/1", ["seed=1", "x=1"], 0.75)
    write(tmp_path / "s/2", ["seed=2", "x=2"], None)
    report = compare(str(tmp_path / "s"), ["test/accuracy"])
    assert report.unfinished == ("2",)
    table = report.table()
    assert list(table.columns) == ["on", "setting", "runs", "test/accuracy", "test/accuracy ±"]
    assert [list(row)[:4] for row in table.rows] == [["train on Manifest a.csv", "as above", "0, 1", 0.625]]
    assert "0.625" in repr(report)
    report.save(tmp_path / "out")
    assert json.loads((tmp_path / "out/metrics.json").read_text()) == {"test/accuracy": 0.625}
    assert (tmp_path / "out/comparison.csv").read_text().startswith("on,setting,runs,test/accuracy")


def test_mistakes_are_named(tmp_path):
    with pytest.raises(ValueError, match="no folder"):
        compare(tmp_path / "c")
    write(tmp_path / "a", ["seed=0"], None)
    with pytest.raises(ValueError, match=r"no run below it has a metrics.json yet"):
        compare(tmp_path)
    write(tmp_path / "b", ["seed=0"], 0.5)
    with pytest.raises(ValueError, match="did you mean 'test/accuracy'"):
        compare(tmp_path, ["test/acuracy"])
