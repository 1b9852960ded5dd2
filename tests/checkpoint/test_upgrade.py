"""Directories of older formats are read, and a log message names what was changed."""

import json
import logging
from pathlib import Path

import pytest

import mm
from mm.checkpoint import read_config
from mm.checkpoint.upgrade import FORMAT

HERE = Path(__file__).parent


def close(found: object, expected: object) -> bool:
    """Compare nested data, its floats up to rounding."""
    if isinstance(expected, dict) and isinstance(found, dict):
        return list(found) == list(expected) and all(close(found[key], expected[key]) for key in expected)
    if isinstance(expected, list) and isinstance(found, list):
        return len(found) == len(expected) and all(map(close, found, expected))
    return found == pytest.approx(expected, rel=1e-4) if isinstance(expected, float) else found == expected


def test_format_4_is_read_and_predicts_as_the_version_that_wrote_it(caplog):
    with caplog.at_level(logging.INFO, logger="mm"):
        model = mm.load(HERE / "format4")
    (record,) = [record for record in caplog.records if record.name == "mm"]
    assert f"read from format 4 (now {FORMAT}): `readers` is `target_codecs`" in record.getMessage()
    known = json.loads((HERE / "format4_predictions.json").read_text(encoding="utf-8"))
    assert close(model.predict(known["samples"]), known["predictions"])


def test_format_4_is_saved_in_the_current_format(tmp_path):
    mm.load(HERE / "format4").save(tmp_path / "model")
    assert read_config(tmp_path / "model")["format"] == FORMAT
    known = json.loads((HERE / "format4_predictions.json").read_text(encoding="utf-8"))
    again = mm.load(tmp_path / "model")
    assert close(again.predict(known["samples"]), known["predictions"])
    assert again.spec.inputs == mm.load(HERE / "format4").spec.inputs
    assert again.model.calibration == mm.load(HERE / "format4").model.calibration


def test_unknown_format_is_an_error_that_names_the_formats(tmp_path):
    (tmp_path / "model.safetensors").touch()
    (tmp_path / "config.yaml").write_text("{format: 3, requires: {}, model: {}, transforms: {}, spec: {}}")
    with pytest.raises(ValueError, match=rf"got format 3, this mm reads 4 to {FORMAT}; install the mm that wrote it"):
        read_config(tmp_path)
