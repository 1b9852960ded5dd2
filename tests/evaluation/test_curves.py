import csv
import math

import pytest

from mm.evaluation.curves import Curves, draw_curves, summarise_curves, write_curves

SEVERITIES = [0.0, 0.5, 1.0]
OURS: Curves = {
    ("kind", "accuracy", "text", "typos"): [0.8, 0.6, 0.2],
    ("size", "mae", "text", "typos"): [1.0, 2.0, 3.0],
    ("kind", "accuracy", "text", "missing"): [0.8, 0.7, 0.6],
    ("size", "mae", "text", "missing"): [1.0, 1.0, 1.0],
    ("kind", "accuracy", "photo", "jpeg"): [0.8, 0.8, 0.8],
    ("size", "mae", "photo", "jpeg"): [1.0, 1.5, 2.0],
}
BASE = {key: [x + 0.1 for x in values[:2]] + [values[2] - 0.1] for key, values in OURS.items()}
BETTER = {"kind": True, "size": False}


def test_names_and_means_of_several_heads():
    found = summarise_curves(SEVERITIES, OURS, BASE, BETTER)
    assert found["robustness[text]/kind/typos/relative"] == pytest.approx(0.55 / 0.8)
    assert found["robustness[text]/size/typos/relative"] == pytest.approx(1 / 2)
    assert found["robustness[photo]/size/relative"] == pytest.approx(1 / 1.5)
    assert found["robustness/size/relative"] == pytest.approx((1 / 2 + 1 / 1.5) / 2)
    assert found["robustness/kind/missing/relative"] == pytest.approx(0.7 / 0.8)
    # the baseline, shifted to begin at the model's value, ends 0.2 lower: a triangle of 0.5 * 0.2 / 2
    assert found["robustness[text]/kind/typos/effective"] == pytest.approx(0.05)
    assert found["robustness[text]/size/typos/effective"] == pytest.approx(-0.05)
    assert "robustness[text]/kind/relative" in found
    assert not any(math.isnan(value) for value in found.values())


def test_names_of_one_head():
    one = {key: values for key, values in OURS.items() if key[0] == "kind"}
    assert set(summarise_curves(SEVERITIES, one, {}, BETTER)) == {
        "robustness[text]/typos/relative",
        "robustness[text]/missing/relative",
        "robustness[photo]/jpeg/relative",
        "robustness[text]/relative",
        "robustness[photo]/relative",
        "robustness/missing/relative",
        "robustness/relative",
    }


def test_a_line_per_point(tmp_path):
    write_curves(tmp_path / "r.csv", SEVERITIES, OURS, BASE)
    with (tmp_path / "r.csv").open() as file:
        found = list(csv.DictReader(file))
    assert len(found) == 3 * len(OURS)
    assert found[5] == {
        "input": "text",
        "corruption": "typos",
        "severity": "1.0",
        "metric": "size/mae",
        "value": "3.0",
        "baseline": "2.9",
    }


def test_a_panel_per_input_and_head():
    drawn = draw_curves(SEVERITIES, OURS, BASE)
    assert [axes.get_title() for axes in drawn.axes] == ["text", "photo"] * 2
    assert [len(axes.lines) for axes in drawn.axes] == [4, 2, 4, 2]  # with the baseline's
    assert [text.get_text() for text in drawn.axes[0].get_legend().get_texts()] == ["typos", "missing"]
    assert list(drawn.axes[2].lines[0].get_ydata()) == [1.0, 2.0, 3.0]
