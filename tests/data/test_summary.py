"""What landed in which split is said in a line each."""

import pytest

from mm.data.summary import describe_splits

ROWS = "words,label,who,split\n" + "".join(
    f"w{i},{'ab'[i % 3 == 0] if i != 4 else ''},p{i // 4},{'train' if i < 12 else 'val'}\n" for i in range(16)
)


def test_rows_classes_and_groups_of_each_split(make):
    data = make("a.csv", ROWS, text="words", target="label", group="who", split_column="split")
    assert describe_splits(data.table) == [
        "train: 12 rows in 3 groups; target: a 7, b 4, 1 unlabelled",
        "val: 4 rows in 1 groups; target: a 2, b 2",
    ]


def test_many_classes_are_counted(make):
    rows = "words,label\n" + "".join(f"w{i},c{i % 20}\n" for i in range(200))
    data = make("a.csv", rows, text="words", target="label", split={"val": 0.2, "test": 0})
    assert describe_splits(data.table)[0] == "train: 160 rows; target: 20 of 20 classes, from 8 to 8 rows each"


@pytest.mark.parametrize("group", [None, "who"])
def test_groups_of_several_files(make, tmp_path, group):
    (tmp_path / "b.csv").write_text(ROWS.replace("who", "other"), encoding="utf-8")
    data = make("a.csv", ROWS, text="words", target="label", group=group)
    assert (data.table.groups is None) == (group is None)
