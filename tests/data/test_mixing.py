import numpy as np
import pytest

from mm.data.mixing import Balance, Mixing, Mixture, rarest


@pytest.mark.parametrize(
    ("mixing", "weights", "parts"),
    [
        (Mixing(), [1, 1, 1], [100, 400, 900]),
        (Mixing(), [4, 1, 1], [400 * 14 / 17, 400 * 14 / 17, 900 * 14 / 17]),  # each row of the first four times
        (Mixing("uniform"), [1, 1, 1], [1400 / 3] * 3),
        (Mixing("uniform"), [1, 2, 4], [200, 400, 800]),
        (Mixing("temperature"), [1, 1, 1], [1400 * part / 60 for part in (10, 20, 30)]),
        (Mixing("temperature", temperature=1.0), [1, 1, 1], [100, 400, 900]),
    ],
)
def test_counts(mixing: Mixing, weights: list[float], parts: list[float]) -> None:
    counts = mixing.counts([100, 400, 900], weights)
    assert sum(counts) == 1400
    assert np.abs(np.array(counts) - parts).max() <= 1


def test_a_file_without_rows_is_not_drawn() -> None:
    assert Mixing("uniform").counts([10, 0, 30], [1, 5, 1]) == [20, 0, 20]


def test_an_epoch_goes_on_where_the_last_one_stopped() -> None:
    mixture = Mixture(np.array([0] * 10 + [1] * 4), [6, 8], one_source=False)
    places, before = zip(*(mixture.draw(epoch, lambda mine, seed: mine) for epoch in range(3)))
    assert [p[:6].tolist() for p in places] == [[0, 1, 2, 3, 4, 5], [6, 7, 8, 9, 0, 1], [2, 3, 4, 5, 6, 7]]
    assert [p[6:].tolist() for p in places] == [[10, 11, 12, 13] * 2] * 3
    assert before[1].tolist() == [0, 0, 0, 0, 1, 1] + [0] * 4 + [1] * 4


def test_wrong_settings() -> None:
    with pytest.raises(
        ValueError, match=r"datamodule.mixing: got 'sizes', wanted one of proportional, uniform, temperature"
    ):
        Mixing("sizes")
    with pytest.raises(ValueError, match=r"datamodule.temperature: got 0, wanted a number above 0"):
        Mixing("temperature", 0)


LABEL = np.repeat([0, 1, 2], [900, 90, 10])
ONE = np.zeros(1000, dtype=np.int64)


@pytest.mark.parametrize(
    ("power", "wanted"),
    [
        (1.0, [334, 333, 333]),
        (0.0, [900, 90, 10]),
        (0.5, [1000 * x / (30 + 90**0.5 + 10**0.5) for x in (30, 90**0.5, 10**0.5)]),
    ],
)
def test_classes_of_one_file(power: float, wanted: list[float]) -> None:
    stratum, counts = Balance("target", power).strata(LABEL, ONE, [1000])
    assert stratum.tolist() == LABEL.tolist()
    assert sum(counts) == 1000
    assert np.abs(np.array(counts) - wanted).max() <= 1


def test_unlabelled_rows_come_as_often_as_without() -> None:
    stratum, counts = Balance("target").strata(np.where(np.arange(1000) % 2, LABEL, -100), ONE, [1000])
    assert counts[0] == 500  # half of them are unlabelled
    assert sorted(counts[1:]) == [166, 167, 167]
    assert (stratum[::2] == 0).all()


def test_classes_of_several_files_are_even_whatever_their_weights() -> None:
    """The first file has one class alone, and counts twice: of that class it has twice the part that its rows have."""
    label, source = np.array([0] * 30 + [0] * 30 + [1] * 40), np.repeat([0, 1], [30, 70])
    stratum, counts = Balance("target").strata(label, source, [45, 55])
    drawn = {(int(label[s][0]), int(source[s][0])): n for n, s in ((n, stratum == i) for i, n in enumerate(counts))}
    assert drawn[0, 0] + drawn[0, 1] == drawn[1, 1] == 50
    assert drawn[0, 0] / drawn[0, 1] == pytest.approx((45 / 30) / (55 / 70), rel=0.05)


def test_of_several_classes_the_rarest_counts() -> None:
    rows = [["a"], ["a", "b"], ["a", "c", "b"], [], None, ["a"]]
    label = rarest(rows, "labels")
    assert label[0] == label[5]
    assert len({*label[:4]}) == 4  # c is rarer than b, b than a, and none has no label
    assert label[4] < 0
    tags = [["O", "B-PER", "I-PER"], ["O", "B-PER", "O"], ["O"], ["B-PER", "B-LOC"]]
    label = rarest(tags, "tags")
    assert label[0] == label[1]
    assert len({*label}) == 3
    boxes = [[{"label": "cat", "box": [0, 0, 1, 1]}], [{"label": "cat"}, {"label": "dog"}], []]
    assert len({*rarest(boxes, "boxes")}) == 3


def test_a_class_of_one_row_is_in_every_epoch() -> None:
    for power in (0.0, 0.3, 1.0):
        _, counts = Balance("target", power).strata(np.array([0] * 997 + [1, 2, 3]), ONE, [1000])
        assert min(counts) >= 1
    with pytest.raises(ValueError, match="datamodule.balance_exponent: got 2, wanted from 0"):
        Balance("target", 2)
