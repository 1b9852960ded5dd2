"""The report against scikit-learn's, with classes never predicted and classes absent; and its picture."""

import pytest
import torch
from sklearn.metrics import classification_report, confusion_matrix

from mm.metrics.classification_report import NUMBERS_UP_TO, ClassificationReport

CLASSES = ["cat", "dog", "macro avg", "never seen", "never said"]


def draw():
    torch.manual_seed(0)
    scores = torch.rand(60, 5)
    scores[:, 4] = 0  # never predicted
    target = torch.randint(5, (60,))
    target[target == 3] = 0  # absent from the truth
    return scores, target


@pytest.mark.parametrize("rows", [60, 5, 1])
def test_numbers_are_scikit_learn_s(rows):
    scores, target = (t[:rows] for t in draw())
    metric = ClassificationReport(CLASSES, absent_as_zero=True)  # as scikit-learn, told all classes, counts them
    for part in torch.arange(rows).split(7):
        metric.update(scores[part], target[part])
    got = metric.compute()
    names = ["0", "1", "2", "3", "4"]
    wanted = classification_report(
        target, scores.argmax(1), labels=range(5), target_names=names, output_dict=True, zero_division=0
    )
    for kind, theirs in {"precision": "precision", "recall": "recall", "f1": "f1-score", "support": "support"}.items():
        for i, name in enumerate(CLASSES):
            assert got[f"{kind}/{name}"].item() == pytest.approx(wanted[str(i)][theirs]), (kind, name)
    for kind, theirs in {"precision": "precision", "recall": "recall", "f1": "f1-score"}.items():
        assert got[f"{kind}_macro"].item() == pytest.approx(wanted["macro avg"][theirs])
        assert got[f"{kind}_weighted"].item() == pytest.approx(wanted["weighted avg"][theirs])
        assert got[f"{kind}_micro"].item() == pytest.approx(wanted["accuracy"])


def test_nothing_seen_gives_zeros_and_reset_forgets():
    metric = ClassificationReport(CLASSES)
    metric.update(*draw())
    assert any(value.item() for value in metric.compute().values())
    metric.reset()
    metric.update(torch.zeros(0, 5), torch.zeros(0, dtype=torch.long))
    assert not any(value.item() for value in metric.compute().values())


def test_figure_shows_the_counts_where_the_reader_looks_for_them():
    scores, target = draw()
    metric = ClassificationReport(CLASSES)
    metric.update(scores, target)
    axes = metric.figure().axes[0]
    wanted = confusion_matrix(target, scores.argmax(1), labels=range(5))
    shown = {text.get_position(): int(text.get_text()) for text in axes.texts}  # x: predicted, y: true
    assert shown == {(x, y): wanted[y, x] for x in range(5) for y in range(5)}
    assert [label.get_text() for label in axes.get_yticklabels()] == CLASSES
    image = axes.images[0].get_array()
    assert image[0].sum() == pytest.approx(1)  # rows are shares of the true class
    assert image[3].sum() == 0


def test_figure_without_numbers_where_they_would_not_fit(tmp_path):
    n = NUMBERS_UP_TO + 1
    metric = ClassificationReport([f"class {i}" for i in range(n)])
    metric.update(torch.rand(50, n), torch.randint(n, (50,)))
    figure = metric.figure()
    assert not figure.axes[0].texts
    figure.savefig(tmp_path / "confusion.png")


def test_counts_under_autocast_are_exact():
    """In bfloat16 301 is 300."""
    metric = ClassificationReport(["a", "b"])
    target = torch.tensor([0] * 301 + [1] * 699)
    with torch.autocast("cpu", torch.bfloat16):
        metric.update(torch.nn.functional.one_hot(target, 2).float(), target)
    assert metric.confusion.tolist() == [[301, 0], [0, 699]]
