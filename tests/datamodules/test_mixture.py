import numpy as np
import pytest

from datamodules.mixture import Mixing, Mixture


@pytest.mark.parametrize(
    ("mixing", "weights", "parts"),
    [
        (Mixing(), [1, 1, 1], [100, 400, 900]),
        (Mixing(), [4, 1, 1], [400 * 14 / 17, 400 * 14 / 17, 900 * 14 / 17]),  # each row of the first four times
        (Mixing("equal"), [1, 1, 1], [1400 / 3] * 3),
        (Mixing("equal"), [1, 2, 4], [200, 400, 800]),
        (Mixing("temperature"), [1, 1, 1], [1400 * part / 60 for part in (10, 20, 30)]),
        (Mixing("temperature", temperature=1.0), [1, 1, 1], [100, 400, 900]),
    ],
)
def test_counts(mixing: Mixing, weights: list[float], parts: list[float]) -> None:
    counts = mixing.counts([100, 400, 900], weights)
    assert sum(counts) == 1400
    assert np.abs(np.array(counts) - parts).max() <= 1


def test_a_file_without_rows_is_not_drawn() -> None:
    assert Mixing("equal").counts([10, 0, 30], [1, 5, 1]) == [20, 0, 20]


def test_an_epoch_goes_on_where_the_last_one_stopped() -> None:
    mixture = Mixture(np.array([0] * 10 + [1] * 4), [6, 8], one_source=False)
    places, before = zip(*(mixture.draw(epoch, lambda mine, seed: mine) for epoch in range(3)))
    assert [p[:6].tolist() for p in places] == [[0, 1, 2, 3, 4, 5], [6, 7, 8, 9, 0, 1], [2, 3, 4, 5, 6, 7]]
    assert [p[6:].tolist() for p in places] == [[10, 11, 12, 13] * 2] * 3
    assert before[1].tolist() == [0, 0, 0, 0, 1, 1] + [0] * 4 + [1] * 4


def test_wrong_settings() -> None:
    with pytest.raises(ValueError, match=r"datamodule.mix: got 'sizes', wanted one of size, equal, temperature"):
        Mixing("sizes")
    with pytest.raises(ValueError, match=r"datamodule.temperature: got 0, wanted a number above 0"):
        Mixing("temperature", 0)
