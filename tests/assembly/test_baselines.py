from pathlib import Path

import pytest
import yaml

import mm
from mm.assembly.baselines import compare_with_baseline
from mm.baselines import BaselineReport, BaselineResult
from mm.callbacks import BestMetrics
from mm.runs.summary import table_rows

CONF = Path(__file__).parents[2] / "conf" / "model" / "heads"
CPU = ["trainer.accelerator=cpu"]
ROWS = [{"text": f"press {('zero', 'one')[n % 2]} {n % 9}", "digit": f"d{n % 2}"} for n in range(60)]


def make_report(targets=("target",)):
    results = [
        BaselineResult(
            target, name, f"model of {name}", {"val": {"accuracy": value, "rows": 5}, "test": {"accuracy": 0.5}}
        )
        for target in targets
        for name, value in (("constant", 0.2), ("text", 0.8))
    ]
    return BaselineReport(results, targets, dict.fromkeys(targets, ("accuracy", True)))


@pytest.mark.parametrize(("value", "num_lines"), [(0.81, 0), (0.8, 2), (0.1, 2)])
def test_only_a_model_that_does_not_win_is_named(value, num_lines):
    lines = compare_with_baseline(make_report(), {"val/accuracy": value}, {"text": "text"})
    assert len(lines) == num_lines
    if lines:
        assert "'text' (model of text)" in lines[0] and "that of the baseline 0.8" in lines[0]
        assert "model/encoders/text=minilm" in lines[1]


def test_each_target_is_compared_by_its_name():
    validated = {"val/a/accuracy": 0.9, "val/b/accuracy": 0.3}
    lines = compare_with_baseline(make_report(("a", "b")), validated, {})
    assert len(lines) == 2 and "val/b/accuracy is 0.3" in lines[0]


def test_nothing_is_said_without_validation():
    assert compare_with_baseline(make_report(), {}, {}) == []


def test_baselines_are_rows_below_the_model():
    results = {"test/accuracy": 0.7, **make_report(("a", "b")).metrics}
    rows = table_rows(results | {"test/a/accuracy": 0.7}, "a/")
    assert rows == {
        "test": {"accuracy": 0.7},
        "baseline[constant]": {"accuracy": 0.5},
        "baseline[text]": {"accuracy": 0.5},
    }


class StubTrainer:
    sanity_checking = False
    callback_metrics: dict


def test_best_metrics_are_those_of_the_monitored_optimum():
    callback = BestMetrics("val/loss", "min")
    trainer = StubTrainer()
    for loss, accuracy in ((1.0, 0.4), (0.5, 0.6), (float("nan"), 0.9), (0.7, 0.8), (0.5, 0.7)):
        trainer.callback_metrics = {"val/loss": loss, "val/accuracy": accuracy, "train/loss": 3.0}
        callback.on_validation_end(trainer, None)
    assert callback.best == {"val/loss": 0.5, "val/accuracy": 0.6}
    resumed = BestMetrics("val/loss", "min")
    resumed.load_state_dict(callback.state_dict())
    assert resumed.best == callback.best


def test_training_from_python_reports_baselines(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = mm.Manifest(ROWS, targets=["digit"], num_workers=0)
    model = mm.build(data.spec, text="hashed_ngrams", embed_dim=8)
    settings = {"max_epochs": 1, "progress_bar": False, "overrides": CPU}
    report = mm.train(model, data, baseline=True, **settings)
    assert report.baseline is not None and report.folder is None
    assert report.metrics["baseline/test[text]/accuracy"] == 1
    assert "baseline/test[text]/accuracy" in str(report.table())
    without = mm.train(model, data, **settings)
    assert without.baseline is None
    assert not any(name.startswith("baseline") for name in without.metrics)
    same = [name for name in without.metrics if name != "train/duration_s"]
    assert [report.metrics[name] for name in same] == [without.metrics[name] for name in same]


@pytest.mark.parametrize(
    ("head", "kind"), [("classification", "class"), ("multilabel", "labels"), ("regression", "number")]
)
def test_default_metrics_are_those_of_the_default_heads(head, kind):
    from mm.baselines.scoring import default_metrics
    from mm.types import TargetData

    stated = yaml.safe_load((CONF / f"{head}.yaml").read_text(encoding="utf-8"))["metrics"]
    metrics = default_metrics(TargetData(kind=kind, classes=("a", "b", "c")))
    assert {name: type(metric).__name__ for name, metric in metrics.items()} == {
        name: node["_target_"].rpartition(".")[2] for name, node in stated.items()
    }
    for name, node in stated.items():
        for key in ("average", "squared", "ignore_index"):
            assert getattr(metrics[name], key, node.get(key)) == node.get(key, getattr(metrics[name], key, None)), name
