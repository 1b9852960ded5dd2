"""Answers in files are those that were given, in the order, types and columns that one table of all would have."""

import gc
import os
import pickle
import random
from pathlib import Path

import pyarrow
import pytest

from mm.tasks.answers import Answers, Written

KINDS = {
    "class": lambda rng: {"prediction": rng.choice("abc"), "probability": {c: rng.random() for c in "abc"}},
    "number": lambda rng: {"prediction": rng.choice([1, 2.5, None])},
    "spans": lambda rng: {"prediction": [{"text": "x", "at": [1, rng.choice([2, 2.5])]}] * rng.randrange(3)},
    "odd keys": lambda rng: {"prediction": "x" * rng.randrange(40), rng.choice("pqrst"): rng.random()},
    "structs": lambda rng: {"prediction": [{k: k * 2 for k in rng.sample("zyx", rng.randrange(4))}]},
    "sets": lambda rng: {"prediction": True, "prediction_set": rng.sample("abcd", rng.randrange(3))},
}


def one_table(answers: dict[int, dict], rows: list[int]) -> pyarrow.Table:
    """As one table of all rows, whatever it takes."""
    flat = {
        row: {
            "/".join(map(str, (head, key, *inner))): x
            for head, answer in heads.items()
            for key, value in answer.items()
            for inner, x in ([((k,), v) for k, v in value.items()] if isinstance(value, dict) else [((), value)])
        }
        for row, heads in answers.items()
    }
    names = dict.fromkeys(name for row in sorted(flat) for name in flat[row])
    return pyarrow.table({name: [flat.get(row, {}).get(name) for row in rows] for name in names})


def whole(answers: Answers, rows: list[int]) -> pyarrow.Table:
    blocks = list(answers.tables(rows))
    assert sum(size for size, _ in blocks) == len(rows)
    return pyarrow.concat_tables([table for _, table in blocks])


@pytest.mark.parametrize("limit", [1, 40, 10**6])
@pytest.mark.parametrize("heads", [["class"], ["number", "spans"], ["odd keys"], ["structs"], list(KINDS)])
def test_are_as_one_table_in_one_process_and_in_two(tmp_path, limit, heads):
    rng = random.Random(0)
    said = {row: {head: KINDS[head](rng) for head in heads} for row in rng.sample(range(100), 60)}
    rows = sorted(rng.sample(range(100), 80))
    expected = one_table(said, rows)
    alone, first, second = (Answers(tmp_path, limit) for _ in range(3))
    for i, (row, answers) in enumerate(said.items()):
        alone.add(row, answers)
        (first, second)[i % 2].add(row, answers)
    handed = pickle.loads(pickle.dumps(second.hand_over()))
    first.take(handed)
    for found in (alone, first):
        assert sorted(found) == sorted(said)
        table = whole(found, rows)
        assert table.schema.names == expected.schema.names
        if "structs" not in heads:  # whose fields are in the order in which they came
            assert table.schema == expected.schema
        assert table.to_pylist() == expected.to_pylist()
    assert list(second) == []


def test_files_are_removed_by_whoever_has_them_last(tmp_path):
    first, second = Answers(tmp_path, 10), Answers(tmp_path, 10)
    for row in range(20):
        (first, second)[row % 2].add(row, {"h": {"prediction": "a"}})
    handed = second.hand_over()
    del second
    gc.collect()
    assert len(list(tmp_path.iterdir())) == 2
    first.take(handed)
    assert len(whole(first, list(range(20)))) == 20
    del first
    gc.collect()
    assert not list(tmp_path.iterdir())


def test_a_forked_worker_removes_nothing(tmp_path):
    answers = Answers(tmp_path, 1)
    answers.add(0, {"h": {"prediction": "a"}})
    child = os.fork()
    if not child:
        del answers
        gc.collect()
        os._exit(0)
    os.waitpid(child, 0)
    assert len(whole(answers, [0])) == 1


def test_memory_and_blocks_are_bounded_by_the_limit(tmp_path):
    answers = Answers(tmp_path, 1000)
    for row in range(500):
        answers.add(row, {"h": {"prediction": "a", "probability": {str(c): 0.0 for c in range(99)}}})
        assert answers.size < 1000 + 100 and len(answers.held) <= 10
    assert max(size for size, _ in answers.tables(range(500))) <= 20


def test_values_of_several_kinds_become_text(tmp_path):
    answers = Answers(tmp_path, 3)
    for row, value in enumerate(["a", 1, ["b"], None, {}, 2.5, "c"]):
        answers.add(row, {"h": {"prediction": value}})
    assert whole(answers, list(range(7)))["h/prediction"].to_pylist() == ["a", "1", '["b"]', None, None, "2.5", "c"]


def test_rows_without_answers_and_no_answers_at_all(tmp_path):
    answers = Answers(tmp_path)
    assert [(size, table.num_columns) for size, table in answers.tables([0, 1, 2])] == [(3, 0)]
    answers.add(1, {"h": {"prediction": "a"}})
    answers.take(Written())
    assert whole(answers, [0, 1, 2])["h/prediction"].to_pylist() == [None, "a", None]


def test_a_disk_that_is_full_ends_no_test(tmp_path):
    """Metrics are worth more than predictions: who writes these, after the metrics, gets the error."""
    first, second = Answers(tmp_path, 2), Answers(tmp_path / "gone", 2)
    for row in range(10):
        first.add(row, {"h": {"prediction": "a"}})
        second.add(row + 10, {"h": {"prediction": "a"}})
    assert not second.held
    with pytest.raises(FileNotFoundError, match="gone"):
        next(second.tables([11]))
    first.take(pickle.loads(pickle.dumps(second.hand_over())))
    with pytest.raises(FileNotFoundError, match="gone"):
        next(first.tables([1]))


def test_a_folder_that_is_not_shared_is_named(tmp_path):
    first, second = Answers(tmp_path), Answers(tmp_path)
    second.add(0, {"h": {"prediction": "a"}})
    handed = second.hand_over()
    Path(handed.chunks[0].path).unlink()
    first.take(handed)
    with pytest.raises(ValueError, match="run folder, which has to lie in a file system that all machines share"):
        whole(first, [0])
