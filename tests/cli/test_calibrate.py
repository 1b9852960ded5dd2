"""A model directory before and after `mm calibrate`: how sure it is changes, and nothing else does."""

import json
import math
import random
import shutil

import pyarrow.parquet
import pytest
import torch
import yaml
from conftest import COLUMNS, TINY
from scipy.stats import betabinom
from torchmetrics.functional.classification import binary_calibration_error

import mm as package

WORDS = {"good": "up", "bad": "down", "odd": "side"}
ARGS = ["datamodule=text", "datamodule.columns.text=text", "datamodule.num_workers=0", "trainer.accelerator=cpu"]
ARGS += [f"model.{x}" for x in ("embed_dim=32", "encoders.text.embed_dim=32", "encoders.text.num_layers=1")]
ARGS += ["task.optimizer.lr=0.003"]
ONE = [*ARGS, "datamodule.columns.target=mood"]
TARGETS = "datamodule.columns.targets={mood: mood, tags: tags, size: size, words: words}"
SEVERAL = [*ARGS, "datamodule=manifest", TARGETS, "model/fusion=sum", "model.fusion.anchor=text"]
SEVERAL += ["trainer.max_epochs=6"]
KINDS = {"mood": "classification", "tags": "multilabel", "size": "regression", "words": "token_classification"}
SEVERAL += [f"+model/heads@model.heads.{name}={kind}" for name, kind in KINDS.items()]
SEVERAL += [f"datamodule.transforms.text.{x}" for x in ("max_length=24", "overflow=window", "window_overlap=0.5")]


def write(folder, splits: str, name: str = "rows.jsonl") -> str:
    """Three rows in ten are labelled by chance, some are not labelled. splits: a letter each, by turns; -: none."""
    rng = random.Random(0)
    lines = []
    for row in range(400):
        word = list(WORDS)[row % 3]
        text = f"it is {word}" + " indeed" * rng.choice([0, 0, 4])
        mood = rng.choice(list(WORDS.values())) if rng.random() < 0.3 else WORDS[word]
        tags = "|".join(t for t in ("a", "b") if (rng.random() < 0.2) != (t == "a" and word == "good"))
        line = {"id": str(row), "text": text, "mood": mood, "tags": tags or "|", "size": row % 3 + rng.gauss(0, 1)}
        line["words"] = ["B-x" if w == word or rng.random() < 0.1 else "O" for w in text.split()]
        if row % 11 == 0:
            line["mood"] = ""
        if row % 7 == 0:
            line["tags"] = ""
        if splits != "-":
            line["split"] = {"t": "train", "v": "val", "e": "test"}[splits[row // 3 % len(splits)]]
        lines.append(json.dumps(line))
    path = folder / name
    path.write_text("\n".join(lines))
    return f"datamodule.path={path}"


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    return write(tmp_path_factory.mktemp("rows"), "ttvee")


@pytest.fixture(scope="module")
def trained(mm_once, tmp_path_factory, rows):
    folder = tmp_path_factory.mktemp("trained")
    args = [*ONE, rows, "trainer.max_epochs=6", "model.heads.target.label_smoothing=0.4", f"paths.outputs={folder}"]
    mm_once(folder, "train", "run=r", *args)
    return folder / "r/model"


@pytest.fixture
def model(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "model")


def config_of(model) -> dict:
    return yaml.safe_load((model / "config.yaml").read_text())


def test_confidence_changes_and_nothing_else(mm, model, trained, rows):
    texts = [{"text": f"it is {word}"} for word in WORDS]
    before = [answer["target"] for answer in package.load(model).predict(texts)]
    measured = mm("evaluate", f"checkpoint={model}", "datamodule=text", rows).metrics
    run = mm("calibrate", f"checkpoint={model}", "datamodule=text", rows, "alpha=0.2", "run=c")
    assert run.status == 0, run.err
    found = run.metrics
    assert "calibrated by 81 validation rows of rows.jsonl" in run.out
    assert found["val/rows"] == 73 and found["test/rows"] == 142  # some are unlabelled
    assert found["val/nll"] < found["val/nll_uncalibrated"]  # it is fitted to that
    assert found["test/target_coverage"] == 0.8
    assert abs(found["test/coverage"] - 0.8) < 0.12
    assert 1 <= found["test/mean_set_size"] <= 3
    assert {f.name for f in run.folder.iterdir()} >= {"test_reliability.png", "val_reliability.png", "metrics.json"}

    changed = config_of(model)
    calibration = changed.pop("calibration")
    assert changed == config_of(trained)
    assert calibration == {
        "target": {
            "temperature": found["test/temperature"],
            "bias": 0.0,
            "quantiles": [pytest.approx(calibration["target"]["quantiles"][0])],
            "alpha": 0.2,
            "exact": False,
        }
    }
    assert not list(model.parent.glob("model.*"))
    for file in (f for f in trained.iterdir() if f.name not in ("config.yaml", "README.md")):
        assert file.read_bytes() == (model / file.name).read_bytes()
    card = (model / "README.md").read_text().splitlines()
    assert [line for line in card if line not in (trained / "README.md").read_text().splitlines()] == [card[-1]]
    assert card[-1].startswith("Calibration: by 81 validation rows of rows.jsonl")

    after = [answer["target"] for answer in package.load(model).predict(texts)]
    for old, new in zip(before, after):
        assert new["prediction"] == old["prediction"] == new["prediction_set"][0]
        powers = {c: p ** (1 / found["test/temperature"]) for c, p in old["probability"].items()}
        wanted = {c: p / sum(powers.values()) for c, p in powers.items()}
        assert new["probability"] == pytest.approx(wanted, abs=1e-4)
    again = mm("evaluate", f"checkpoint={model}", "datamodule=text", rows)
    assert again.metrics["test/accuracy"] == measured["test/accuracy"]
    assert again.metrics["test/calibration_error"] == pytest.approx(found["test/calibration_error"], abs=1e-5)
    assert measured["test/calibration_error"] == pytest.approx(found["test/calibration_error_uncalibrated"], abs=1e-5)
    lines = pyarrow.parquet.read_table(again.folder / "predictions.parquet").to_pylist()
    told = [line for line in lines if line["mood"] is not None]
    inside = sum(line["mood"] in line["target/prediction_set"] for line in told) / len(told)
    assert inside == pytest.approx(found["test/coverage"])
    assert sum(len(line["target/prediction_set"]) for line in told) / len(told) == pytest.approx(
        found["test/mean_set_size"]
    )


def test_a_second_time_is_as_the_first_and_sets_go_with_it(mm, model, rows):
    first = mm("calibrate", f"checkpoint={model}", "datamodule=text", rows, "alpha=0.2", "run=one")
    again = mm("calibrate", f"checkpoint={model}", "datamodule=text", rows, "alpha=0.2", "run=again")
    assert again.metrics == first.metrics
    second = mm("calibrate", f"checkpoint={model}", "datamodule=text", rows, "run=two")
    assert set(second.metrics) == {k for k in first.metrics if "coverage" not in k and "set_size" not in k}
    assert second.metrics["test/temperature"] != first.metrics["test/temperature"]  # which half of the rows has fitted
    assert (model / "README.md").read_text().count("Calibration: ") == 1
    assert "prediction_set" not in package.load(model).predict({"text": "it is odd"})["target"]


def test_several_heads_windows_and_what_is_not_labelled(mm, tmp_path, rows):
    model = mm("train", *SEVERAL, rows, "run=r").folder / "model"
    text = {"text": "it is good indeed indeed indeed indeed"}
    before = package.load(model).predict(text)
    run = mm("calibrate", f"checkpoint={model}", "datamodule=text", rows, "alpha=0.2", "run=c")
    assert run.status == 0, run.err
    assert "size: no temperature: a RegressionHead predicts no probability" in run.out
    assert list(config_of(model)["calibration"]) == ["mood", "tags", "size", "words"]
    assert len(config_of(model)["calibration"]["tags"]["quantiles"]) == 2
    found = run.metrics
    for name in ("mood", "tags", "size", "words"):  # of new rows those inside are beta-binomial: see tests/metrics
        fitted, out = int(found[f"val/{name}/rows"]), int((found[f"val/{name}/rows"] + 1) * 0.2)
        seen = int(found[f"test/{name}/rows"])
        assert found[f"test/{name}/coverage"] >= betabinom(seen, fitted + 1 - out, out).ppf(1e-4) / seen
    assert found["test/tags/min_class_coverage"] <= found["test/tags/coverage"]
    assert found["test/size/mean_interval_size"] == pytest.approx(
        2 * config_of(model)["calibration"]["size"]["quantiles"][0]
    )
    for name in ("mood", "tags", "words"):
        assert found[f"val/{name}/nll"] < found[f"val/{name}/nll_uncalibrated"]
        assert (run.folder / f"test_{name}_reliability.png").stat().st_size > 1000
    after = package.load(model).predict(text)
    assert {n: a["prediction"] for n, a in after.items()} == {n: a["prediction"] for n, a in before.items()}
    low, high = after["size"]["prediction_interval"]
    assert low < after["size"]["prediction"] < high
    assert set(after["tags"]["prediction_set"]) == {"a", "b"}
    logit = {t: [math.log(p / (1 - p)) for p in (x["tags"]["probability"]["a"],)] for t, x in ((0, before), (1, after))}
    assert logit[0][0] / logit[1][0] == pytest.approx(found["val/tags/temperature"], rel=1e-3)
    assert after["words"]["probability"] != before["words"]["probability"]
    for tag, some in zip(after["words"]["tags"], after["words"]["prediction_set"], strict=True):
        assert tag in some and set(some) <= {"O", "B-x"}


def test_rows_are_those_that_training_drew(mm, tmp_path):
    """A file that names no split: validation and test rows are drawn as for training, seed and parts included."""
    path = write(tmp_path, "-")
    split = "datamodule.split={val: 0.3, test: 0.2, seed: 5, rows: null}"
    model = mm("train", *ONE, path, "trainer.max_epochs=1", split, "run=r").folder / "model"
    args = [f"checkpoint={model}", "datamodule=text", path]
    run = mm("calibrate", *args, "run=same")
    assert "120 validation rows of rows.jsonl (drawn where it names none, with val=0.3, seed=5)" in run.out
    own = pyarrow.parquet.read_table(model.parent / "predictions.parquet").to_pylist()
    assert run.metrics["test/rows"] == sum(line["mood"] is not None for line in own)
    other = mm("calibrate", *args, "datamodule.split.val=0.1", "run=other")
    assert "40 validation rows" in other.out and "val=0.1, seed=5" in other.out
    whole = mm("calibrate", *args, "split=all", "alpha=0.1", "run=whole")
    assert whole.status == 0, whole.err
    assert "400 rows of rows.jsonl, which the model must not have been trained on" in whole.out
    assert not [name for name in whole.metrics if name.startswith("test/")]
    assert config_of(model)["calibration"]["target"]["alpha"] == 0.1


@pytest.mark.parametrize(
    ("splits", "args", "said"),
    [
        ("ttvee", ["alpha=1.5"], "alpha: got 1.5, wanted a fraction of the rows between 0 and 1, such as 0.1"),
        ("ttvee", ["alpha=some"], "alpha: got some, wanted a fraction"),
        ("ttvee", ["alpha=0.01"], "alpha=0.01: 'target': 36 labelled rows, wanted at least 99, which is"),
        ("ttvee", ["split=train"], "split: got 'train', wanted val, or all"),
        ("ttvee", ["split=all"], "split=all: rows.jsonl names training rows (train 162, val 81, test 157)"),
        ("e", [], "rows.jsonl: has no validation rows (train 0, val 0, test 400)"),
        ("-", ["datamodule.split.val=0"], "has no validation rows (train 360, val 0, test 40)"),
        ("ttvee", ["checkpoint=wandb:a/b/c:v1"], "wanted a folder of your own"),
        ("ttvee", ["datamodule.columns.target=id"], "column 'id'"),
        ("ttvee", ["+temperature=2"], "+temperature: nothing reads it"),
    ],
)
def test_mistakes(mm, model, tmp_path, splits, args, said):
    path = write(tmp_path, splits)
    run = mm("calibrate", f"checkpoint={model}", "datamodule=text", path, *args)
    assert run.status == 2
    assert said in run.err
    assert "Traceback" not in run.err
    assert "calibration" not in config_of(model)
    assert not list(model.parent.glob("model.*"))


@pytest.mark.parametrize(
    ("mood", "said"),
    [
        (["", ""], "nothing can be calibrated: target: no temperature: none of its 6 rows has a label"),
        (["up", "up"], "no temperature: all 6 labels are of one class, wanted at least two"),
        (
            ["up", "down"],
            "no temperature: all 6 labels are predicted correctly, so that none is low enough; give more rows",
        ),
        (
            ["down", "up"],
            "no temperature: the 6 labels are predicted no better than by chance, so that none is high enough",
        ),
    ],
)
def test_rows_from_which_nothing_can_be_learnt(mm, model, tmp_path, mood, said):
    lines = [{"text": f"it is {word}", "mood": m} for word, m in zip(("good", "bad"), mood)] * 3
    path = tmp_path / "few.jsonl"
    path.write_text("\n".join(json.dumps(line) for line in lines))
    run = mm("calibrate", f"checkpoint={model}", "datamodule=text", f"datamodule.path={path}", "split=all")
    assert run.status == 2
    assert said in run.err


def test_a_text_that_is_written_is_as_probable_as_it_is_often_right(mm, tmp_path):
    """The revised probability is Platt's of that before, and what is written stays. What is odd can't be known."""
    rows = write(tmp_path, "ttvee")
    path, rng = tmp_path / "rows.jsonl", random.Random(1)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    odd = [line | {"mood": rng.choice(["side", "down"])} if "odd" in line["text"] else line for line in lines]
    path.write_text("\n".join(map(json.dumps, odd)))
    heads = ["model/heads=seq2seq", "model.heads.target.num_layers=1", "model.heads.target.target_codec.max_length=8"]
    heads += [
        "trainer.max_epochs=20",
        "trainer.check_val_every_n_epoch=10",
        "task.optimizer.lr=0.01",
        "model.heads.target.label_smoothing=0.4",
    ]
    model = mm("train", *ONE, rows, *heads, "run=r").folder / "model"
    texts = [{"text": f"it is {word}"} for word in WORDS]
    before = [answer["target"] for answer in package.load(model).predict(texts)]
    run = mm("calibrate", f"checkpoint={model}", "datamodule=text", rows, "alpha=0.2", "run=c")
    assert run.status == 0, run.err
    assert "target: no sets: a Seq2SeqHead has no prediction sets" in run.out
    found, kept = run.metrics, config_of(model)["calibration"]["target"]
    assert found["test/n_events"] == found["test/rows"] == 148
    assert kept == {
        "temperature": found["test/temperature"],
        "bias": found["test/bias"],
        "quantiles": [],
        "alpha": None,
        "exact": True,
    }
    assert found["val/nll"] < found["val/nll_uncalibrated"] and found["test/nll"] < found["test/nll_uncalibrated"]
    assert (run.folder / "test_reliability.png").stat().st_size > 1000
    after = [answer["target"] for answer in package.load(model).predict(texts)]
    for old, new in zip(before, after, strict=True):
        assert new["prediction"] == old["prediction"]
        assert new["log_probability"] == pytest.approx(math.log(new["probability"]))
        p, q = math.exp(old["log_probability"]), new["probability"]
        assert math.log(q / (1 - q)) == pytest.approx(
            math.log(p / (1 - p)) / kept["temperature"] + kept["bias"], abs=1e-3
        )
    again = mm("evaluate", f"checkpoint={model}", "datamodule=text", rows)
    lines = pyarrow.parquet.read_table(again.folder / "predictions.parquet").to_pylist()
    told = [line for line in lines if line["mood"] is not None]
    said = torch.tensor([line["target/probability"] for line in told])
    right = torch.tensor([int(line["target/prediction"] == line["mood"]) for line in told])
    error = binary_calibration_error(said, right, n_bins=15)
    assert float(error) == pytest.approx(found["test/calibration_error"], abs=1e-4)
    assert float(error) < found["test/calibration_error_uncalibrated"]
    settings = model / "config.yaml"
    settings.write_text(settings.read_text().replace("exact: true", "exact: false"))
    with pytest.warns(UserWarning, match="calibration of 'target' is of an older version.* run mm calibrate again"):
        old = package.load(model)
    assert [answer["target"] for answer in old.predict(texts)] == before


def test_a_model_without_heads_has_nothing_to_calibrate(mm, manifest):
    args = [a for a in [*COLUMNS, *TINY] if "target" not in a]
    args += [f"datamodule.path={manifest}", "task=contrastive", "trainer.max_epochs=1", "run=r"]
    model = mm("train", *args).folder / "model"
    run = mm("calibrate", f"checkpoint={model}", "datamodule=manifest", f"datamodule.path={manifest}")
    assert run.status == 2
    assert "this model has no head to calibrate" in run.err


def test_rows_that_were_trained_on_are_refused_and_named(mm, tmp_path):
    lines = [f"{['red', 'blue'][i % 2]} thing {i},{['warm', 'cold'][(i + (i % 7 == 0)) % 2]}\n" for i in range(100)]
    (tmp_path / "a.csv").write_text("text,label\n" + "".join(lines))
    data = ["datamodule=manifest", "datamodule.path=a.csv", "datamodule.num_workers=0"]
    small = ["model/encoders/text=hashed_ngrams", "trainer.max_epochs=1", "trainer.accelerator=cpu", "run=r"]
    columns = ["datamodule.columns.text=text", "datamodule.columns.target=label"]
    run = mm("train", *data, *columns, *small)
    assert run.status == 0, run.err
    model = f"checkpoint={run.folder / 'model'}"
    assert mm("calibrate", model, *data, "run=same").status == 0
    (tmp_path / "a.csv").write_text("text,label\n" + "".join([*lines, "green thing,warm\n"]))
    grown = mm("calibrate", model, *data, "run=grown")
    assert grown.status == 2
    assert "were trained on, the first: a.csv: row" in grown.err and "datamodule.columns.split" in grown.err
    measured = mm("evaluate", model, *data, "run=whole", "trainer.accelerator=cpu")
    assert "80 of the 101 measured rows were trained on" in measured.out
    again = mm("train", "run=r", "resume=true", "trainer.max_epochs=2")
    assert again.status == 2 and "the data has changed since the run began: train" in again.err
