"""What a user rated last is for the test, and nobody's history knows of what came later."""

import csv

import pytest
import torch

from mm.datamodules.movielens import MovieLensDataModule
from mm.transforms.tabular.row import TabularTransform

MOVIES = [("10", "Up (2009)", "Animation|Comedy"), ("7", "Heat (1995)", "Crime"), ("9", "Old (1900)", "Comedy")]
MOVIES += [("8", "Alone, The (2001)", "(no genres listed)"), ("5", "New (2020)", "Crime"), ("6", "Nobody's (1990)", "")]
RATINGS = [("1", "10", "4.0", 50), ("1", "7", "3.0", 20), ("1", "9", "5.0", 30), ("1", "8", "1.0", 40)]
RATINGS += [("2", "7", "2.0", 9), ("2", "9", "3.5", 5), ("2", "10", "4.5", 7), ("2", "5", "4.0", 11)]


@pytest.fixture
def make(tmp_path):
    def build(ratings=RATINGS, movies=MOVIES, history=2, targets=None, **more):
        names = {"movies": (movies, ["movieId", "title", "genres"])}
        names["ratings"] = (ratings, ["userId", "movieId", "rating", "timestamp"])
        for name, (rows, header) in names.items():
            with (tmp_path / f"{name}.csv").open("w", newline="") as file:
                csv.writer(file).writerows([header, *rows])
        usual = {"batch_size": 8, "num_workers": 0, "on_error": "raise", "split": {"val": 0.1, "test": 0.1, "seed": 0}}
        targets = {"item": "movieId", "user": "userId"} if targets is None else targets
        return MovieLensDataModule(str(tmp_path), history, targets, 0, seed=0, **usual, **more)

    return build


def test_by_hand(make):
    module = make()
    table = module.table
    assert table.ids[:8] == ["1-7", "1-9", "1-8", "1-10", "2-9", "2-10", "2-7", "2-5"]
    assert table.split[:8].tolist() == ["train", "train", "val", "test"] * 2
    histories = [row and row["history"] for row in table.inputs["history"][:8]]
    assert histories == [None, ["7"], ["7", "9"], ["9", "8"], None, ["9"], ["9", "10"], ["10", "7"]]
    assert table.inputs["item"][2] == {"movieId": "8"}
    assert table.inputs["genres"][2:4] == [None, {"genres": ["Animation", "Comedy"]}]
    assert table.inputs["title"][3] == "Up (2009)"
    candidates = range(8, 20)
    assert {table.split[row] for row in candidates} == {"val", "test"}
    assert [table.inputs["item"][row]["movieId"] for row in candidates] == [x for x, _, _ in MOVIES] * 2
    assert all(table.inputs[name][row] is None for name in ("user", "history") for row in candidates)


def test_what_is_known_of_training_rows_alone(make):
    module = make()
    table = module.table
    item = table.spec.targets["item"]
    assert item.classes == ("5", "6", "7", "8", "9", "10")
    assert item.facts["counts"] == [0, 0, 1, 0, 2, 1]
    assert table.targets["user"][8:].unique().tolist() == [-100]
    columns = table.spec.inputs["item"].columns
    assert columns[0].classes == ("7", "9", "10")  # what only the test has is no class of the input
    module.use(
        {name: TabularTransform(table.spec.inputs[name].columns) for name in ("user", "history", "item", "genres")}
    )
    (batch,) = module.loader("test")
    assert batch.masks["user"].any(1).sum() == 2
    assert batch.masks["item"].any(1).all()
    assert (3, "oov/item") not in module.notes and (7, "oov/item") in module.notes


def test_histories_end_before_the_row_whatever_the_order_of_the_file(make):
    generator = torch.Generator().manual_seed(0)
    order = torch.randperm(60, generator=generator).tolist()
    ratings = [(str(i % 2), str(i), "3", i // 7) for i in order]  # several of one second
    movies = [(str(i), f"Film {i}", "Crime") for i in range(60)]
    table = make(ratings, movies=movies, history=60).table
    for user in ("0", "1"):
        rows = [row for row in range(60) if table.inputs["user"][row]["userId"] == user]
        told = [table.inputs["item"][row]["movieId"] for row in rows]
        time = [int(film) // 7 for film in told]
        assert time == sorted(time) and len(time) == 30
        for place, row in enumerate(rows):
            history = table.inputs["history"][row]
            assert (history["history"] if history else []) == told[:place]
    assert make(ratings, movies=movies, history=60).table.ids == table.ids


def test_ratings_are_a_target(make):
    from mm.targets.regression import RegressionTarget

    table = make(targets={"target": "rating", "item": None}, readers={"target": RegressionTarget()}).table
    assert table.targets["target"][:4].tolist() == [3, 5, 1, 4]
    assert table.targets["target"][8:].isnan().all()
    assert list(table.spec.targets) == ["target"]


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"ratings": [("1", "99", "4", 1)]}, "rates the film 99, which movies.csv does not have"),
        ({"history": 0}, "datamodule.history: got 0"),
        ({"targets": {"item": "film"}}, "datamodule.targets.item: got 'film', wanted movieId, userId or rating"),
    ],
)
def test_mistakes(make, how, said):
    with pytest.raises(ValueError, match=said):
        _ = make(**how).table


def test_no_files(tmp_path, make):
    module = make()
    (tmp_path / "movies.csv").unlink()
    with pytest.raises(ValueError, match=r"movielens: no file .*movies.csv; put GroupLens' ratings.csv, movies.csv"):
        _ = module.table
