"""Names are known as the metrics themselves say, so that runs without stored directions rank in the same order."""

import pytest
from metrics.test_every_metric import CHECKS, make

from mm.runs.directions import known_direction
from mm.tasks.measures import metric_directions


@pytest.mark.parametrize("name", CHECKS)
def test_the_name_says_what_the_metric_does(name: str) -> None:
    for key, higher in metric_directions(name.partition(".")[2], make(name)).items():
        for place in ("val/", "test[audio]/", "test/tags/"):
            assert known_direction(f"{place}{key}") is higher, key


@pytest.mark.parametrize(
    ("name", "higher"),
    [
        ("test/loss", False),
        ("val/unimodal_loss", False),
        ("train/duration_s", False),
        ("test/perplexity", False),
        ("test[text→vision]/median_rank", False),
        ("test[text→vision]/recall@5", True),
        ("test/ndcg@10", True),
        ("test/nll", False),
        ("test/nll_uncalibrated", False),
        ("test/mse", False),
        ("test/brier", False),
        ("test/ece", False),
        ("test/mean_set_size", False),
        ("test[audio]/linear_probe_accuracy", True),
        ("benchmark/rows_per_second", True),
        ("benchmark/step_seconds", False),
        ("test/precision/loss", True),  # of a class that is called so
        ("test/support/f1", None),
        ("test/chance@1", None),
        ("test/rows", None),
        ("test/something", None),
    ],
)
def test_by_hand(name: str, higher: bool | None) -> None:
    assert known_direction(name) is higher
