"""`calibrate` from Python, on a small model that is far too sure of itself."""

import json
from dataclasses import replace

import pytest
import tiny
import torch
from torchmetrics.functional.classification import multiclass_calibration_error

from mm.calibration import calibrate


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tiny.write_rows(tmp_path_factory.mktemp("rows") / "rows.csv")


@pytest.fixture(scope="module")
def model(path):
    return tiny.train_model(tiny.build_data(path))


@pytest.fixture
def data(path):
    return tiny.build_data(path)


def test_the_result_is_a_new_model_whose_confidence_is_that_of_the_old_at_a_temperature(model, data):
    sample = {"text": "it is good", "title": "a good one"}
    before = model.predict(sample)["target"]
    report = calibrate(model, data, alpha=0.2, device="cpu")
    assert model.model.calibration == {}
    assert not data.transforms  # the data is as it was, too
    assert model.predict(sample)["target"] == before
    after = report.model.predict(sample)["target"]
    temperature = report.calibrations["target"].temperature
    assert temperature == report.metrics["test/temperature"] > 1.5
    powers = {c: p ** (1 / temperature) for c, p in before["probability"].items()}
    expected = {c: p / sum(powers.values()) for c, p in powers.items()}
    assert after["probability"] == pytest.approx(expected, abs=1e-4)
    assert after["prediction"] == before["prediction"] == after["prediction_set"][0]
    assert report.metrics["test/target_coverage"] == 0.8
    assert report.metrics["val/nll"] < report.metrics["val/nll_uncalibrated"]


def test_numbers_are_torchmetrics_of_the_test_rows(model, data):
    report = calibrate(model, data, device="cpu")
    data.use(model.transforms)
    batch = data.batch(data.rows("test").tolist())
    with torch.inference_mode():
        logits = model.model(batch.inputs, batch.masks).predictions["target"].logits
    truth = batch.targets["target"]
    for name, by in (
        ("calibration_error_uncalibrated", 1.0),
        ("calibration_error", report.metrics["test/temperature"]),
    ):
        expected = multiclass_calibration_error((logits / by).softmax(-1), truth, num_classes=3, n_bins=15)
        assert report.metrics[f"test/{name}"] == pytest.approx(float(expected), abs=1e-5)
    likelihood = torch.nn.functional.cross_entropy(logits.double() / report.metrics["test/temperature"], truth)
    assert report.metrics["test/nll"] == pytest.approx(float(likelihood), abs=1e-6)
    assert report.metrics["test/rows"] == len(truth) and report.metrics["data/faulty_rows"] == 0


def test_in_place_the_model_itself_is_calibrated(model, data):
    own = replace(model, model=tiny.train_model(data).model)
    report = calibrate(own, data, device="cpu", inplace=True)
    assert report.model is own
    assert own.model.calibration == report.calibrations


def test_the_report_is_a_table_a_figure_and_files(model, data, tmp_path):
    report = calibrate(model, data, alpha=0.2, device="cpu")
    table = report.table()
    assert [row[0] for row in table.rows] == ["val", "test"]
    assert "calibration error uncalibrated" in table.columns and "calibrated by 60 validation rows of" in str(table)
    assert [axes.get_title() for axes in report.figure().axes[:2]] == ["test before", "test after"]
    folder = report.save(tmp_path / "report")
    assert {file.name for file in folder.iterdir()} == {"metrics.json", "test_reliability.png", "val_reliability.png"}
    assert json.loads((folder / "metrics.json").read_text()) == report.metrics


def test_mistakes_are_named(model, data, path, tmp_path):
    with pytest.raises(ValueError, match="alpha: got 2, wanted a fraction"):
        calibrate(model, data, alpha=2)
    with pytest.raises(ValueError, match="split: got 'train', wanted val, or all"):
        calibrate(model, data, split="train")
    with pytest.raises(ValueError, match="names training rows"):
        calibrate(model, data, split="all")
    other = tmp_path / "other.csv"
    other.write_text(path.read_text().replace(",side,", ",sideways,"))
    with pytest.raises(ValueError, match="unknown label 'sideways'.*down, side, up"):
        calibrate(model, tiny.build_data(other))


def test_data_whose_training_rows_have_fewer_classes_is_read_with_those_of_the_model(model, data, path, tmp_path):
    """Classes are numbered by the model's label map, and not by that of the new file."""
    fewer = tmp_path / "fewer.csv"
    fewer.write_text("\n".join(line for line in path.read_text().splitlines() if ",down," not in line))
    known = tiny.build_data(fewer)
    known.known, known.trained = dict(model.spec.targets), True
    assert tiny.build_data(fewer).spec.targets["target"].classes == ("side", "up")
    expected = calibrate(model, known, device="cpu").metrics
    assert calibrate(model, tiny.build_data(fewer), device="cpu").metrics == expected
    assert expected["test/rows"] < calibrate(model, data, device="cpu").metrics["test/rows"]
