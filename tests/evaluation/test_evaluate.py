"""A trained model is measured from Python."""

from dataclasses import replace

import pytest
from sklearn.metrics import accuracy_score
from tiny import build_data, train_model, write_rows

import mm
from mm.configurable import configured


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return build_data(write_rows(tmp_path_factory.mktemp("rows") / "rows.csv", count=120))


@pytest.fixture(scope="module")
def model(data):
    from torchmetrics.classification import MulticlassAccuracy

    trained = train_model(data, steps=20)
    accuracy = configured(MulticlassAccuracy, num_classes=3, average="micro")
    trained.metrics = {"target": {"accuracy": accuracy}}
    return trained


def test_accuracy_of_every_subset_is_that_of_the_predictions(model, data):
    report = mm.evaluate(model, data)
    rows = data.rows("test").tolist()
    truth = [data.truth("target", row) for row in rows]
    for names, key in ((["text", "title"], "test"), (["text"], "test[text]"), (["title"], "test[title]")):
        samples = [{name: data.table.inputs[name][row] for name in names} for row in rows]
        kept = [i for i, sample in enumerate(samples) if any(sample.values())]
        answers = [model.predict(samples[i])["target"]["prediction"] for i in kept]
        expected = accuracy_score([truth[i] for i in kept], answers)
        assert report.metrics[f"{key}/accuracy"] == pytest.approx(expected), key
    assert report.rows == len(rows)
    assert [row[0] for row in report.table().rows] == ["all", "text", "title"]


def test_model_and_data_stay_as_they_were(model, data):
    weights = {name: x.clone() for name, x in model.model.state_dict().items()}
    first, second = mm.evaluate(model, data, split="val"), mm.evaluate(model, data, split="val")
    assert first.metrics == second.metrics
    assert all((x == weights[name]).all() for name, x in model.model.state_dict().items())
    assert not model.model.training
    assert "test_dataloader" not in vars(data)


def test_all_rows_are_measured_if_no_column_states_the_split(model, data, tmp_path):
    rows = [{"text": f"it is {word}", "target": mood} for word, mood in (("good", "up"), ("bad", "down")) * 20]
    drawn = mm.Manifest(rows, targets=["target"], num_workers=0)
    assert set(drawn.splits) == {"train", "val", "test"}
    report = mm.evaluate(model, drawn)
    assert report.rows == report.metrics["test/rows"] == 40
    assert report.table().to_dicts()[0]["rows"] == 40
    assert set(drawn.splits) == {"train", "val", "test"} and drawn.draw_split
    stated = mm.Manifest(
        [row | {"split": "test" if n < 7 else "train"} for n, row in enumerate(rows)], targets=["target"]
    )
    stated.num_workers = 0
    assert mm.evaluate(model, stated).rows == 7
    assert mm.evaluate(model, data).rows == len(data.rows("test"))


def test_of_the_data_of_the_training_the_rows_that_it_held_out_are_measured(model):
    rows = [{"text": f"it is {n}", "target": mood} for n, mood in enumerate(["up", "down"] * 20)]
    drawn = mm.Manifest(rows, targets=["target"], num_workers=0)
    trained = replace(model, rows=drawn.fingerprint.tensors())
    report = mm.evaluate(trained, drawn)
    assert report.rows == len(drawn.rows("test")) == 4 and report.note == ""
    assert mm.evaluate(trained, drawn, split="val").rows == 4
    new = [row | {"text": f"it was {n}"} for n, row in enumerate(rows)]
    assert mm.evaluate(trained, mm.Manifest(new, targets=["target"], num_workers=0)).rows == 40


def test_rows_of_the_training_are_noted(model, data, caplog):
    trained = replace(model, rows=data.fingerprint.tensors())
    assert mm.evaluate(trained, data).note == "" and not caplog.records
    rows = [{"text": data.inputs["text"][row], "title": data.inputs["title"][row]} for row in data.rows("train")[:5]]
    again = mm.Manifest(
        [row | {"target": "up"} for row in rows] + [{"text": "it is new", "title": "", "target": "down"}],
        inputs={"text": "text", "title": {"column": "title", "modality": "text"}}, targets=["target"], num_workers=0,
    )  # fmt: skip
    report = mm.evaluate(trained, again)
    assert "5 of the 6 measured rows were trained on" in report.note
    assert report.note in str(report.table())
    assert [(r.name, r.levelname, r.getMessage()) for r in caplog.records] == [("mm", "WARNING", report.note)]


def test_unknown_split_is_an_error(model, data):
    with pytest.raises(ValueError, match="split: got 'tset', wanted one of train, val, test, all"):
        mm.evaluate(model, data, split="tset")
