import json

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import mean_absolute_error
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

import mm
from mm.baselines.estimators import vectorize_texts
from mm.baselines.fitting import draw
from mm.baselines.sounds import mfcc_statistics
from mm.targets.multilabel import MultilabelTarget
from mm.targets.regression import RegressionTarget

RATE = 8000


def splits(count):
    return [("train", "train", "train", "val", "test")[i % 5] for i in range(count)]


def texts(count=100):
    """Noisy texts of two classes: one row in seven has the words of the other."""
    words = {"good": ["fine", "lovely", "great"], "bad": ["poor", "awful", "dull"]}
    rows = []
    for i, split in enumerate(splits(count)):
        mood = ("good", "bad")[i % 2]
        other = {"good": "bad", "bad": "good"}[mood] if i % 7 == 0 else mood
        rows.append({"text": f"{words[other][i % 3]} film {i % 11}", "mood": mood, "split": split})
    return rows


def manifest(rows, **settings):
    return mm.Manifest(rows, num_workers=0, **settings)


@pytest.mark.filterwarnings("ignore:Liblinear failed to converge")
def test_text_model_is_that_of_scikit_learn():
    rows = texts()
    data = manifest(rows, columns={"text": "text", "target": "mood", "split": "split"})
    report = mm.baseline(data)
    train, test = ([row for row in rows if row["split"] == split] for split in ("train", "test"))
    x, z = vectorize_texts([row["text"] for row in train], [row["text"] for row in test])
    accuracies = [
        LogisticRegression(C=c, solver="liblinear", dual=True, tol=0.1, max_iter=20, random_state=0)
        .fit(x, [row["mood"] for row in train])
        .score(z, [row["mood"] for row in test])
        for c in (10, 1)
    ]
    assert report.metrics["baseline/test[text]/accuracy"] in [pytest.approx(one) for one in accuracies]
    assert report.metrics["baseline/test[constant]/accuracy"] == pytest.approx(0.5, abs=0.05)
    assert report.metrics["baseline/val[text]/rows"] == 20
    assert report.best("target")[0].name == "text"
    assert mm.baseline(data).metrics | {"baseline/duration_s": 0} == report.metrics | {"baseline/duration_s": 0}


def test_sound_model_is_that_of_scikit_learn(tmp_path):
    random = np.random.default_rng(0)
    rows, waves = [], []
    for i, split in enumerate(splits(60)):
        pitch = (300, 330, 360)[i % 3] + random.normal() * 15
        wave = 0.1 * np.sin(2 * np.pi * pitch * np.arange(RATE // 4) / RATE) + random.normal(size=RATE // 4) * 0.03
        soundfile.write(tmp_path / f"{i}.wav", wave, RATE, subtype="FLOAT")
        waves.append(torch.from_numpy(wave).float())
        rows.append({"audio": str(tmp_path / f"{i}.wav"), "label": f"p{i % 3}", "split": split})
    report = mm.baseline(manifest(rows, columns={"audio": "audio", "target": "label", "split": "split"}))
    x = np.stack([mfcc_statistics(wave, RATE) for wave in waves])
    y, split = np.arange(60) % 3, np.array(splits(60))
    accuracies = [
        make_pipeline(StandardScaler(), SVC(C=c, break_ties=True))
        .fit(x[split == "train"], y[split == "train"])
        .score(x[split == "test"], y[split == "test"])
        for c in (10, 1)
    ]
    assert report.metrics["baseline/test[audio]/accuracy"] in [pytest.approx(one) for one in accuracies]


def test_pictures_of_two_colours_are_told_apart(tmp_path):
    random = np.random.default_rng(0)
    rows = []
    for i, split in enumerate(splits(40)):
        pixels = random.integers(0, 60, (20, 20, 3), dtype=np.uint8)
        pixels[:, :, i % 2] += 150
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
        rows.append({"vision": str(tmp_path / f"{i}.png"), "label": f"c{i % 2}", "split": split})
    report = mm.baseline(manifest(rows, columns={"vision": "vision", "target": "label", "split": "split"}))
    assert report.metrics["baseline/test[vision]/accuracy"] == 1


def test_numbers_of_a_table_are_those_of_scikit_learn():
    random = np.random.default_rng(0)
    a = random.normal(size=200)
    rows = [{"a": f"{x:.6f}", "y": f"{x * x * 100 + 1.7e9:.6f}", "split": split} for x, split in zip(a, splits(200))]
    data = manifest(
        rows,
        columns={"tabular": ["a"], "target": "y", "split": "split"},
        readers={"target": RegressionTarget()},
    )
    report = mm.baseline(data)
    x, y = np.array([[float(row["a"])] for row in rows]), np.array([float(row["y"]) for row in rows])
    train, test = (np.array(splits(200)) == split for split in ("train", "test"))
    standard = (y - y[train].mean()) / y[train].std()
    errors = []
    for setting in ({}, {"max_leaf_nodes": 6}):
        model = HistGradientBoostingRegressor(min_samples_leaf=6, random_state=0, **setting)
        answer = model.fit(x[train], standard[train]).predict(x[test]) * y[train].std() + y[train].mean()
        errors.append(mean_absolute_error(y[test], answer))
    assert report.metrics["baseline/test[tabular]/mae"] in [pytest.approx(one, rel=0.02) for one in errors]
    assert report.primary == {"target": ("mae", False)}
    assert report.best("target")[0].name == "tabular"
    constant = mean_absolute_error(y[test], np.full(test.sum(), y[train].mean()))
    assert report.metrics["baseline/test[constant]/mae"] == pytest.approx(constant)


def test_labels_and_several_targets():
    rows = texts()
    for i, row in enumerate(rows):
        row["tags"] = "|".join([row["text"].split()[0], *(["odd"] if i % 11 % 2 else [])])
    data = manifest(
        rows,
        columns={"text": "text", "targets": {"tags": "tags", "mood": "mood"}, "split": "split"},
        readers={"tags": MultilabelTarget()},
    )
    report = mm.baseline(data)
    assert report.metrics["baseline/test[text]/tags/f1"] > 0.8 > report.metrics["baseline/test[constant]/tags/f1"]
    assert report.metrics["baseline/test[constant]/tags/exact_match"] == 0
    assert {result.target for result in report.results} == {"tags", "mood"}
    assert mm.baseline(data, targets=["mood"]).primary == {"mood": ("accuracy", True)}


def test_absent_inputs_take_no_part():
    rows = texts(100)
    for i, row in enumerate(rows):
        row["size"] = "" if i % 3 == 0 else ("5" if row["mood"] == "good" else "1")
        row["text"] = "" if i % 4 == 1 else row["text"]
    columns = {"text": "text", "tabular": ["size"], "target": "mood", "split": "split"}
    report = mm.baseline(manifest(rows, columns=columns))
    test = [i for i, split in enumerate(splits(100)) if split == "test"]
    rows_of = {result.name: result.metrics["test"]["rows"] for result in report.results}
    assert rows_of["text"] == sum(i % 4 != 1 for i in test)
    assert rows_of["tabular"] == sum(i % 3 != 0 for i in test)
    assert rows_of["all"] == rows_of["constant"] == sum(i % 4 != 1 or i % 3 != 0 for i in test)
    assert report.metrics["baseline/test[tabular]/accuracy"] == 1
    assert report.metrics["baseline/test[all]/accuracy"] > 0.9


def test_an_unreadable_file_is_absent_and_named(tmp_path):
    rows = []
    for i, split in enumerate(splits(20)):
        Image.new("RGB", (8, 8), ("red", "blue")[i % 2]).save(tmp_path / f"{i}.png")
        rows.append({"vision": str(tmp_path / f"{i}.png"), "label": f"c{i % 2}", "split": split})
    (tmp_path / "4.png").write_bytes((tmp_path / "4.png").read_bytes()[:40])
    report = mm.baseline(manifest(rows, columns={"vision": "vision", "target": "label", "split": "split"}))
    assert "1 unreadable" in report.notes[0] and "row 4" in report.notes[0]
    assert report.metrics["baseline/test[vision]/rows"] == 3


def test_other_targets_have_no_baseline_and_are_named():
    rows = [{"text": "Anna lives here", "target": ["B-PER", "O", "O"]}] * 20
    from mm.targets.tags import TagTarget

    data = manifest(rows, columns={"text": "text", "target": "target"}, readers={"target": TagTarget(input="text")})
    report = mm.baseline(data)
    assert not report.results
    assert report.notes == [
        "no baseline for 'target': its target is of kind tags, and only class, labels, number have one"
    ]


def test_mistakes_are_named():
    data = manifest(texts(10), columns={"text": "text", "target": "mood", "split": "split"})
    with pytest.raises(ValueError, match="targets: got 'targt', wanted some of target; did you mean 'target'"):
        mm.baseline(data, targets=["targt"])
    with pytest.raises(ValueError, match="max_rows: got 0"):
        mm.baseline(data, max_rows=0)
    with pytest.raises(ValueError, match="lacks"):
        mm.baseline(object())


def test_samples_are_drawn_by_seed_and_stated():
    rows = np.arange(0, 100, 2)
    assert draw(rows, 50, 0) is rows
    sample = draw(rows, 10, 3)
    assert len(sample) == 10 and (np.diff(sample) > 0).all() and set(sample) <= set(rows)
    assert (sample == draw(rows, 10, 3)).all() and (sample != draw(rows, 10, 4)).any()
    data = manifest(texts(100), columns={"text": "text", "target": "mood", "split": "split"})
    assert mm.baseline(data, max_rows=30).notes == ["train: a random sample of 30 of 60 rows is used (seed 0)"]


def test_report_is_saved(tmp_path):
    data = manifest(texts(), columns={"text": "text", "target": "mood", "split": "split"})
    report = mm.baseline(data)
    report.save(tmp_path)
    saved = json.loads((tmp_path / "baseline.json").read_text())
    assert [result["name"] for result in saved["results"]] == ["constant", "text"]
    assert json.loads((tmp_path / "metrics.json").read_text()) == report.metrics
    assert "val/accuracy" in str(report.table()) and "TF-IDF" in str(report.table())
