import numpy as np
import pytest

from mm.targets.regression import RegressionTarget


def test_numbers() -> None:
    cells = ["1.5", "2", "", "nan", "-inf", "1,5", "x", "1e39", 3.5, None]
    targets, data, faults, _ = RegressionTarget().fit(cells, np.array([True] * 9 + [False]), None)
    assert targets[[0, 1, 8]].tolist() == [1.5, 2, 3.5]
    assert targets.isnan().sum() == 7
    assert list(faults) == [3, 4, 5, 6, 7]
    assert "write a decimal point" in faults[5]
    assert "decimal" not in faults[6]
    assert data.facts == {"mean": pytest.approx(np.mean([1.5, 2, 3.5])), "std": pytest.approx(np.std([1.5, 2, 3.5]))}
    assert [RegressionTarget().decode(target, data) for target in targets[:3]] == [1.5, 2.0, None]


def test_the_deviation_of_a_number_that_does_not_vary_is_0() -> None:
    assert RegressionTarget().fit(["4"] * 4, np.ones(4, dtype=bool), None).data.facts["std"] == 0


def test_training_rows_without_a_number_are_an_error_unless_there_is_a_trained_model() -> None:
    cells, train = ["", "1"], np.array([True, False])
    with pytest.raises(ValueError, match="no training row has a number"):
        RegressionTarget().fit(cells, train, None)
    data = RegressionTarget().fit(cells, ~train, None).data
    assert RegressionTarget().fit(cells, train, data).values[1] == 1


def test_large_numbers_keep_their_digits() -> None:
    times = [1_700_000_000 + i for i in range(60)]
    targets, data, faults, _ = RegressionTarget().fit([str(time) for time in times], np.ones(60, dtype=bool), None)
    assert targets.tolist() == times
    assert not faults
    assert data.facts == {"mean": np.mean(times), "std": np.std(times)}
    assert [RegressionTarget().decode(target, data) for target in targets] == times


@pytest.mark.parametrize("cell", ["0.1", "1e12", "1700000000.3"])
def test_equal_numbers_have_a_deviation_of_exactly_0(cell) -> None:
    assert RegressionTarget().fit([cell] * 60, np.ones(60, dtype=bool), None).data.facts == {
        "mean": float(cell),
        "std": 0.0,
    }


@pytest.mark.parametrize(
    ("cell", "said"),
    [
        ("NA", "got 'NA', wanted a number; it is a usual spelling of a missing value: leave the cell empty"),
        ("nan", "got 'nan', wanted a finite number; it is a usual spelling of a missing value"),
        ("-inf", "got '-inf', wanted a finite number; leave the cell empty"),
        ("3,5", "got '3,5', wanted a number; write a decimal point, not a comma"),
        ("2024-01-03", "it is a date or a time: write it as numbers"),
        ("5 kg", "write the number without its unit"),
    ],
)
def test_what_is_no_number_is_told_with_its_remedy(cell: str, said: str) -> None:
    read = RegressionTarget().fit(["1", cell, "2"], np.ones(3, bool), None)
    assert said in read.faults[1]
    assert read.data.facts["mean"] == 1.5
