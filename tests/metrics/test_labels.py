"""Figures of metrics show names from the data as they are, and stay small whatever the number of classes."""

import pytest
import torch

from mm.metrics._labels import INCHES, LABELS_UP_TO, inches, short
from mm.metrics.classification_report import ClassificationReport
from mm.metrics.entities import Entities
from mm.metrics.relations import Relations

NAMES = [
    "$10-$20",
    "$a_$",
    "a_b^c",
    "\\frac{1}{2}",
    "two\nlines",
    "\x1b[2J",
    "\u202egpj.exe",
    "x" * 500,
    "<b>",
    "%d",
    "",
]


def labels(figure) -> list[str]:
    return [label.get_text() for label in figure.axes[0].get_yticklabels()]


def report(names):
    metric = ClassificationReport(names)
    metric.update(torch.eye(len(names)), torch.arange(len(names)))
    return metric


def relations(names):
    metric = Relations(names, other="none of these")
    metric.update(torch.eye(len(names)), torch.arange(len(names)))
    return metric


def entities(names):
    tags = [f"{kind}-{name}" for name in names for kind in "BI"]
    metric = Entities(["O", *tags])
    metric.update(torch.arange(1, len(tags) + 1)[None], torch.arange(1, len(tags) + 1)[None])
    return metric


def test_names_are_short_and_visible():
    assert short("x" * 500) == "x" * 39 + "…"
    assert short("two\nlines\x1b[2J") == "two\\nlines\\x1b[2J"
    assert all(short(name).isprintable() and len(short(name)) <= 40 for name in NAMES)


@pytest.mark.parametrize("build", [report, relations, entities])
def test_names_of_any_kind_are_drawn_as_they_are(tmp_path, build):
    figure = build(NAMES).figure()
    figure.savefig(tmp_path / "a.png", dpi=50)
    shown = labels(figure)
    assert len(shown) == len(NAMES)
    for name in NAMES:
        assert any(label.startswith(short(name)[:30]) for label in shown), name


@pytest.mark.parametrize("build", [report, relations, entities])
def test_a_figure_of_many_classes_is_small_and_without_labels(tmp_path, build):
    figure = build([f"class {i}" for i in range(LABELS_UP_TO + 1)]).figure()
    assert max(figure.get_size_inches()) <= INCHES + 1
    assert labels(figure) == []
    figure.savefig(tmp_path / "a.png", dpi=50)
    assert inches(1, 0.5, 10**6) == INCHES
