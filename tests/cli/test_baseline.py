"""`mm baseline`, and the rows of baselines in the result table of `mm train`."""

import json
from pathlib import Path

import yaml
from conftest import COLUMNS, TINY


def test_verb_prints_and_saves_the_baselines(mm, manifest: Path, tmp_path: Path):
    ran = mm("baseline", f"datamodule.path={manifest}", *COLUMNS, *TINY, "run=b")
    assert ran.status == 0, ran.err
    assert "late fusion" in ran.out and "most frequent class" in ran.out
    folder = tmp_path / "outputs/b"
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["baseline/test[text]/accuracy"] == metrics["baseline/test[all]/accuracy"] == 1
    results = json.loads((folder / "baseline.json").read_text())["results"]
    assert [one["name"] for one in results] == ["constant", "text", "vision", "audio", "all"]
    assert not (folder / "checkpoints").exists()


def test_training_shows_baselines_and_says_who_wins(mm, manifest: Path, tmp_path: Path):
    lost = ["task.optimizer.lr=1e-12", "trainer.max_epochs=1", "baseline=true"]
    ran = mm("train", f"datamodule.path={manifest}", *COLUMNS, *TINY, *lost, "run=t")
    assert ran.status == 0, ran.err
    assert "baseline[audio]" in ran.out and "baseline[constant]" in ran.out
    assert "The model does not beat the baseline" in ran.out and "Try more epochs" in ran.out
    assert ran.out.index("Try more epochs") < ran.out.index("next:")
    folder = tmp_path / "outputs/t"
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["baseline/val[text]/accuracy"] == 1
    directions = json.loads((folder / "metrics.directions.json").read_text())
    assert directions["baseline/val[text]/accuracy"] is True
    assert (folder / "baseline.json").is_file()
    assert yaml.safe_load((folder / "config.yaml").read_text())["baseline"] is True
