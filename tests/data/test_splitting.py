from collections import Counter

import numpy as np
import pytest
from sklearn.model_selection import StratifiedShuffleSplit

from mm.data.splitting import Split, check_split, keep_some, make_split
from mm.data.table import Table
from mm.types import DataSpec


def counts(split: np.ndarray, labels: np.ndarray) -> dict[str, Counter]:
    return {name: Counter(labels[split == name].tolist()) for name in ("train", "val", "test")}


def test_proportions_in_every_class() -> None:
    labels = np.array(["a"] * 600 + ["b"] * 300 + ["c"] * 100, dtype=object)
    found = counts(make_split(1000, Split(0.2, 0.1, 3), labels), labels)
    assert found["test"] == {"a": 60, "b": 30, "c": 10}
    assert found["val"] == {"a": 120, "b": 60, "c": 20}
    assert found["train"] == {"a": 420, "b": 210, "c": 70}


def test_seeds() -> None:
    labels = np.array(list("ab") * 50, dtype=object)
    for group in (None, np.arange(100) // 4):
        one = make_split(100, Split(), labels, group)
        assert (one == make_split(100, Split(), labels.copy(), group)).all()
        assert (one != make_split(100, Split(seed=1), labels, group)).any()


def test_groups_stay_whole() -> None:
    groups = np.array([f"g{k % 17}" for k in range(400)])
    split = make_split(400, Split(0.2, 0.2), None, groups)
    sides = {g: set(split[groups == g]) for g in set(groups)}
    assert all(len(s) == 1 for s in sides.values())
    assert Counter(next(iter(s)) for s in sides.values()) == {"train": 9, "val": 4, "test": 4}


@pytest.mark.parametrize("seed", range(8))
def test_rare_classes_keep_a_training_row(seed: int) -> None:
    """Else a row of validation has a label that training never saw, and the user's file is blamed for our split."""
    labels = np.array(["common"] * 60 + ["other"] * 30 + ["pair"] * 2 + ["single"], dtype=object)
    split = make_split(len(labels), Split(0.2, 0.2, seed), labels)
    found = counts(split, labels)
    assert set(found["train"]) == {"common", "other", "pair", "single"}
    assert sum(found["test"].values()) == 19
    assert abs(sum(found["val"].values()) - 19) <= 1
    for name in ("val", "test"):  # and the others are still stratified
        assert abs(found[name]["common"] - 12) <= 2
        assert abs(found[name]["other"] - 6) <= 2


@pytest.mark.parametrize("seed", range(8))
def test_more_classes_than_places(seed: int) -> None:
    labels = np.array([str(k // 2) for k in range(30)], dtype=object)
    found = counts(make_split(30, Split(0.1, 0.1, seed), labels), labels)
    assert len(found["train"]) == 15
    assert sum(found["val"].values()) == 3
    assert sum(found["test"].values()) == 3


@pytest.mark.parametrize("seed", range(8))
def test_names_are_split_as_sets_of_one_name(seed: int) -> None:
    """Names are compared by their ranks, sets of names one by one."""
    rng = np.random.default_rng(seed)
    names = np.array([f"c{i}" for i in rng.choice(20, 150, p=rng.dirichlet(np.ones(20) / 2))], dtype=object)
    names[0] = "single"
    sets = np.empty(150, dtype=object)
    sets[:] = [[name] for name in names]
    assert (
        make_split(150, Split(0.2, 0.1, seed), names).tolist() == make_split(150, Split(0.2, 0.1, seed), sets).tolist()
    )


def test_names_are_stratified_as_by_scikit_learn() -> None:
    names = np.array([f"c{i}" for i in np.random.default_rng(0).choice(12, 500)], dtype=object)
    split = make_split(500, Split(0, 0.25, 3), names)
    ((_, test),) = StratifiedShuffleSplit(1, test_size=0.25, random_state=3).split(names, names)
    assert np.flatnonzero(split == "test").tolist() == sorted(test.tolist())


@pytest.mark.parametrize("seed", range(8))
def test_several_labels_a_row(seed: int) -> None:
    labels = np.empty(40, dtype=object)
    for row in range(40):
        labels[row] = ["x"] * (row % 2) + ["y"] * (row % 3 == 0) + ["rare"] * (row == 7)
    split = make_split(40, Split(0.2, 0.2, seed), labels)
    assert Counter(split) == {"train": 24, "val": 8, "test": 8}
    assert split[7] == "train"


@pytest.mark.parametrize(
    ("split", "count", "groups", "message"),
    [
        (Split(0.6, 0.4), 10, None, "wanted parts that add up to less than 1"),
        (Split(-0.1, 0.1), 10, None, "val=-0.1"),
        (Split(1.0, 0.0), 10, None, "val=1.0"),
        (Split(0.1, 0.1), 4, None, "0.1 of 4 rows is an empty split; give more rows, a larger part or 0"),
        (Split(0.1, 0.1), 4, np.array(["g"] * 4), "columns.group: the 4 rows to split are all of one group"),
    ],
)
def test_what_can_not_be_split(split: Split, count: int, groups: np.ndarray | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_split(count, split, None, groups)
    assert (make_split(4, Split(0, 0)) == "train").all()


def test_spellings_of_a_split_column() -> None:
    split, faults = check_split(["train", " Valid ", "dev", "validation", "", "TEST", "tets", "training"], "part")
    assert split.tolist() == ["train", "val", "val", "val", "", "test", "", "train"]
    assert faults == [(6, "part", "split 'tets', wanted train, val, test or nothing", "")]


def of(names: np.ndarray) -> Table:
    return Table({}, {}, [], names.copy(), DataSpec(inputs={}, targets={}), "rows.csv")


def test_as_many_training_rows_as_are_wanted() -> None:
    names = np.array(["train"] * 10 + ["val"] * 3, dtype=object)
    kept = {}
    for seed in (0, 1):
        table = of(names)
        keep_some(table, Split(seed=seed, rows=4))
        kept[seed] = np.flatnonzero(table.split == "train").tolist()
        assert (table.split == "val").sum() == 3 and (table.split == "").sum() == 6
        table.split[kept[seed][0]] = ""  # a row that can't be read is dropped
        before = table.split.copy()
        keep_some(table, Split(seed=seed, rows=4))
        assert (table.split == before).all()  # once is enough
    assert len(kept[0]) == len(kept[1]) == 4 and kept[0] != kept[1]
    for rows in (0, 11):
        with pytest.raises(ValueError, match=f"datamodule.split.rows: got {rows}, wanted from 1 to the 10"):
            keep_some(of(names), Split(rows=rows))
