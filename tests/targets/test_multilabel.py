import numpy as np
import pytest

from mm.targets.multilabel import MultilabelTarget
from mm.types import IGNORE

ALL = np.ones(4, dtype=bool)


@pytest.mark.parametrize(("separator", "cell"), [("|", "a | b"), (";", "a;b"), (",", ["a", "b"]), ("|", ("b", "a"))])
def test_several_labels(separator: str, cell: object) -> None:
    reads = MultilabelTarget(separator)
    targets, data, faults, _ = reads.fit([cell, "c", "", None], ALL, None)
    assert targets.tolist() == [[1, 1, 0], [0, 0, 1], [IGNORE] * 3, [IGNORE] * 3]
    assert data.classes == ("a", "b", "c")
    assert data.facts["counts"] == [1, 1, 1]
    assert data.facts["rows"] == 2
    assert not faults
    assert [reads.decode(target, data) for target in targets] == [["a", "b"], ["c"], None, None]


def test_none_of_the_labels_is_not_unlabelled() -> None:
    targets = MultilabelTarget().fit([["a", 3.0, None], [], "|", None], ALL, None).values
    assert targets.tolist() == [[1, 1], [0, 0], [0, 0], [IGNORE] * 2]


def test_one_unknown_of_several_labels() -> None:
    targets, _, faults, _ = MultilabelTarget().fit(["a|z", "a", "b", "a|b"], np.array([False, True, True, True]), None)
    assert targets.tolist() == [[IGNORE] * 2, [1, 0], [0, 1], [1, 1]]
    assert "unknown label 'z'" in faults[0]


def test_one_label_alone_is_no_choice() -> None:
    with pytest.raises(ValueError, match="got one label, 'a', in all training rows.*model/heads=classification"):
        MultilabelTarget().fit(["a", "|", "", "a"], ALL, None)
    with pytest.raises(ValueError, match="got no label in all training rows"):
        MultilabelTarget().fit(["|", "|", "", "|"], ALL, None)


def test_an_empty_separator_is_refused() -> None:
    with pytest.raises(ValueError, match="target_codec.separator: got an empty text"):
        MultilabelTarget("")


def test_a_cell_may_say_that_it_is_unlabelled() -> None:
    targets, data, _, _ = MultilabelTarget(empty_value="(none listed)").fit(
        ["a", "(none listed)", "a|b", "b"], ALL, None
    )
    assert targets.tolist() == [[1, 0], [IGNORE] * 2, [1, 1], [0, 1]]
    assert data.classes == ("a", "b")
    assert data.facts["rows"] == 3
