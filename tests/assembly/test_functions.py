"""The verbs' functions from Python: on one small training, they return reports and print nothing."""

import os

import pyarrow.parquet as pq
import pytest
import yaml
from safetensors.torch import load_file

import mm
from mm.cli.compare import main as compare_main
from mm.fusion.sum import SumFusion

WORDS = ("zero", "one", "two")
CPU = ["trainer.accelerator=cpu"]
ROWS = [{"text": f"press {WORDS[n % 3]} {n}", "digit": f"d{n % 3}"} for n in range(60)]


def make_data(**settings):
    return mm.Manifest(ROWS, targets=["digit"], num_workers=0, **settings)


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """A run from Python, in a folder of its own."""
    folder, before = tmp_path_factory.mktemp("python"), os.getcwd()
    os.chdir(folder)
    try:
        data = make_data()
        model = mm.build(data.spec, text="hashed_ngrams", embed_dim=16)
        return mm.train(model, data, max_epochs=2, run="first", progress_bar=False, overrides=CPU)
    finally:
        os.chdir(before)


def test_run_holds_its_config_and_what_differs_from_the_defaults(report):
    config = yaml.safe_load((report.folder / "config.yaml").read_text())
    assert config["model"]["encoders"]["text"]["_target_"] == "mm.encoders.text.hashed_ngrams.TextHashedNgrams"
    assert config["model"]["embed_dim"] == 16
    assert config["datamodule"]["_target_"] == "mm.datamodules.manifest.ManifestDataModule"
    words = yaml.safe_load((report.folder / "overrides.yaml").read_text())
    assert {"trainer.max_epochs=2", "seed=0", "model.embed_dim=16"} <= set(words)
    assert "model.encoders.text._target_=mm.encoders.text.hashed_ngrams.TextHashedNgrams" in words
    assert report.files["predictions"].is_file()
    assert report.model.path == report.folder / "model"


def test_compare_takes_runs_from_python(report, capsys):
    compared = mm.compare(report.folder.parent)
    assert [ranking.kind for ranking in compared.rankings] == ["train on ManifestDataModule rows"]
    assert compared.metrics["test/accuracy"] == report.metrics["test/accuracy"]
    compare_main([str(report.folder.parent)])
    assert "first" in capsys.readouterr().out


def test_runs_of_other_models_are_other_settings(report, tmp_path, monkeypatch):
    monkeypatch.chdir(report.folder.parents[1])
    data = make_data()
    model = mm.build(data.spec, text="hashed_ngrams", embed_dim=8)
    mm.train(model, data, max_epochs=2, run="narrow", progress_bar=False, overrides=CPU)
    (ranking,) = mm.compare("outputs").rankings
    assert {setting.overrides for setting in ranking.settings} == {("model.embed_dim=16",), ("model.embed_dim=8",)}


def test_predictions_are_those_of_the_model(report, tmp_path, capsys):
    predicted = mm.predict(report.model, [{"text": row["text"]} for row in ROWS], num_workers=0, accelerator="cpu")
    assert predicted.metrics == {"data/faulty_rows": 0, "data/rows": 60}
    single = report.model.predict([{"text": row["text"]} for row in ROWS])
    assert predicted.predictions["digit/prediction"].to_pylist() == [one["digit"]["prediction"] for one in single]
    assert predicted.table().columns == ["id", "digit", "error"]
    assert len(predicted.table().rows) == 20
    predicted.save(tmp_path / "p")
    assert pq.read_table(tmp_path / "p/predictions.parquet").equals(predicted.predictions)
    with pytest.raises(ValueError, match="format: got 'xlsx', wanted one of parquet, csv"):
        predicted.save(tmp_path / "q", format="xlsx")
    predicted.save(tmp_path / "q", format="csv")
    assert [path.name for path in sorted((tmp_path / "q").iterdir())] == ["metrics.json", "predictions.csv"]
    assert capsys.readouterr().out == ""


def test_predict_takes_a_path_and_tells_of_rows_without_an_input(report, tmp_path):
    (tmp_path / "new.csv").write_text("text,other\npress one,1\n,2\n", encoding="utf-8")
    predicted = mm.predict(report.folder / "model", tmp_path / "new.csv", num_workers=0, accelerator="cpu")
    assert predicted.predictions["error"].to_pylist()[0] is None
    assert "no input" in predicted.predictions["error"].to_pylist()[1]
    other = mm.predict(
        report.model, [{"said": "press one"}], columns={"text": "said"}, num_workers=0, accelerator="cpu"
    )
    assert other.predictions["digit/prediction"][0] == predicted.predictions["digit/prediction"][0]
    with pytest.raises(ValueError, match="data: got a int, wanted a path, a table in memory or a data module"):
        mm.predict(report.model, 3)


def test_predict_leaves_data_and_model_as_they_are(report):
    data = make_data()
    before = report.model.model.training
    mm.predict(report.model, data, split="test", accelerator="cpu")
    assert report.model.model.training == before
    assert data.faults == {} and not data.transforms


def test_benchmark_and_batch_size_train_a_copy(report):
    data = make_data(batch_size=2)
    model = mm.build(data.spec, text="hashed_ngrams", embed_dim=16)
    before = {name: x.clone() for name, x in model.state_dict().items()}
    profile = mm.benchmark(model, data, steps=10, warmup=1, overrides=CPU)
    assert profile.metrics["benchmark/step_seconds"] > 0
    found = mm.scale_batch(model, data, max_batch_size=4, overrides=CPU)
    assert found.batch_size == 4
    assert all(x.equal(before[name]) for name, x in model.state_dict().items())
    with pytest.raises(ValueError, match="steps: got 7, wanted a multiple of 10"):
        mm.benchmark(model, data, steps=7)


def test_shards_hold_the_rows(tmp_path):
    (tmp_path / "a.csv").write_text("text,digit\n" + "".join(f"{r['text']},{r['digit']}\n" for r in ROWS))
    written = mm.shard(mm.Manifest(tmp_path / "a.csv", targets=["digit"]), tmp_path / "out", shard_size_mb=1)
    assert (written.rows, written.total, written.shards) == (60, 60, 1)
    assert written.metrics["bytes"] == sum(file.stat().st_size for file in (tmp_path / "out").glob("*.tar"))
    with pytest.raises(ValueError, match="shard_size_mb: got 0, wanted MB above 0"):
        mm.shard(mm.Manifest(tmp_path / "a.csv", targets=["digit"]), tmp_path / "other", shard_size_mb=0)


def test_check_reports_every_check():
    checked = mm.check(SumFusion, {"reduce": "max"})
    assert checked.passed and checked.metrics["failed"] == 0 and len(checked.results) > 5
    with pytest.raises(ValueError, match="SumFusion: got an unexpected keyword argument 'reduc'"):
        mm.check(SumFusion, {"reduc": "max"})


def test_diagnose_refuses_a_folder_without_a_run(tmp_path):
    with pytest.raises(ValueError, match="there is no run in .*: it has no config.yaml"):
        mm.diagnose(tmp_path)


def test_weights_of_a_run_begin_another(report):
    data = make_data()
    model = mm.build(data.spec, text="hashed_ngrams", embed_dim=16, seed=5)
    overrides = [
        f"model.init_from={report.folder / 'model'}",
        "task.optimizer.weight_decay=0",
        "trainer.accelerator=cpu",
    ]
    again = mm.train(model, data, max_epochs=1, lr=0.0, progress_bar=False, overrides=overrides)
    saved = load_file(report.folder / "model/model.safetensors")
    assert all(again.model.model.state_dict()[name].equal(x) for name, x in saved.items())
