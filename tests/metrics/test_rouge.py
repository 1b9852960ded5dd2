import pytest

from mm.metrics.rouge import Rouge


@pytest.mark.parametrize(
    ("kind", "wanted"),
    [
        ("rouge1", 2 * (4 / 4) * (4 / 5) / (4 / 4 + 4 / 5)),  # all four words are among the five
        ("rouge2", 2 * (1 / 3) * (1 / 4) / (1 / 3 + 1 / 4)),  # cat sat
        ("rougeL", 2 * (3 / 4) * (3 / 5) / (3 / 4 + 3 / 5)),  # the cat sat
    ],
)
def test_by_hand(kind, wanted):
    metric = Rouge(kind)
    metric.update(["the cat sat on"], [["On the mat, cat sat!"]])
    assert float(metric.compute()) == pytest.approx(wanted)
    metric.update(["a"], [["b", "a"]])  # the best of several
    assert float(metric.compute()) == pytest.approx((wanted + (kind != "rouge2")) / 2)


def test_kind():
    with pytest.raises(ValueError, match="got kind='rouge9', wanted one of rouge1, rouge2, rougeL"):
        Rouge("rouge9")
