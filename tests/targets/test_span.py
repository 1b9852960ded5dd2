"""Answers by hand, on bytes: a token is a character."""

import numpy as np
import pytest
import torch

from mm.targets.span import SpanTarget, every
from mm.transforms.text.tokens import TextTransform
from mm.types import IGNORE, EncodedTarget

X = IGNORE


def learn(*cells) -> EncodedTarget:
    return SpanTarget("text").fit(cells, np.ones(len(cells), bool), None)


@pytest.mark.parametrize(
    ("cell", "wanted"),
    [
        ("a cat", ["a cat"]),
        ({"text": "a cat", "answer_start": 3}, ["a cat"]),
        ([{"text": "a cat", "answer_start": 3}, "Zoë", 7], ["a cat", "Zoë", "7"]),
        ({"text": ["a", "b"], "answer_start": [1, 2]}, ["a", "b"]),
        ({"text": [], "answer_start": []}, []),
        ([], []),
        (None, None),
        ("", None),
    ],
)
def test_reads_what_a_person_writes_and_back(cell, wanted):
    found = learn(cell)
    assert not found.faults
    assert SpanTarget("text").decode(found.values[0], found.data) == wanted


@pytest.mark.parametrize(
    "cell",
    [
        [""],
        [" "],
        {"text": "a", "answer_start": "3"},
        {"text": "a", "answer_start": -1},
        {"text": "a", "answer_start": -2},
        {"text": "a", "answer_start": True},
        {"text": ["a"], "answer_start": [1, 2]},
        {"answer": "a"},
        [None],
        {},
    ],
)
def test_what_is_no_answer(cell):
    found = learn(cell)
    assert found.values[0].tolist() == [X]
    assert (
        "wanted an answer: a text, or {text: ..., answer_start: 12}" in found.faults[0] or "as many" in found.faults[0]
    )


def align(text: str, cell, **how) -> list[list[int]]:
    read = TextTransform("bytes", return_offsets=True, **how)(text)
    return [x.tolist() for x in SpanTarget("text").align(learn(cell).values[0], read)]


def test_marks_where_an_answer_begins_and_ends():
    assert align("a cat a cat", "cat") == [[0, 0, 1, 0, 2, 0, 0, 0, 0, 0, 0]]
    assert align("a cat a cat", {"text": "cat", "answer_start": 8}) == [[0] * 8 + [1, 0, 2]]
    assert align("abc", ["b", "bc"]) == [[0, 3, 2]]
    assert align("é b", "é") == [[1, 2, 0, 0]]  # a letter of two bytes
    assert align("abc", []) == [[0, 0, 0]]
    assert align("abc", None) == [[X, X, X]]


def test_only_windows_that_have_all_of_it():
    window = {"max_length": 4, "overflow": "window", "window_overlap": 0.5}
    assert align("abcdef", "cd", **window) == [[0, 0, 1, 2], [1, 2, 0, 0]]
    assert align("abcdef", "ef", **window) == [[0, 0, 0, 0], [0, 0, 1, 2]]


def test_what_is_cut_off_on_either_side_is_refused():
    cut = {"max_length": 5}
    assert align("cat sees a dog", "cat", **cut) == [[1, 0, 2, 0, 0]]
    assert align("cat sees a dog", "dog", **cut, overflow="truncate_left") == [[0, 0, 1, 0, 2]]
    for answer, side in [("sees", "truncate"), ("a dog", "truncate"), ("sees a dog", "truncate_left")]:
        with pytest.raises(ValueError, match=f"the answer '{answer}' is nowhere read as a whole"):
            align("cat sees a dog", answer, **cut, overflow=side)


def test_without_a_start_it_is_the_first_that_is_read():
    left = {"max_length": 6, "overflow": "truncate_left"}
    assert align("a cat a cat", "cat", **left) == [[0, 0, 0, 1, 0, 2]]
    assert align("aaa", "aa") == [[1, 2, 0]]
    with pytest.raises(ValueError, match="nowhere read as a whole"):
        align("a cat a cat", {"text": "cat", "answer_start": 2}, **left)


def test_a_word_by_itself_goes_before_a_part_of_one():
    text = "the party sells art, not tart"
    assert every(text, "art") == [16, 5, 26]
    assert every(text, "ar") == [5, 16, 26]  # parts of words all
    assert every("in-out out.", "out") == [3, 7]
    (flags,) = align(text, "art")
    assert [i for i, flag in enumerate(flags) if flag] == [16, 18]


def test_a_pair_is_told_of_its_second():
    assert align(("cat", "a cat"), "cat") == [[0, 0, 0, 0, 0, 0, 1, 0, 2]]


def test_mistakes():
    with pytest.raises(ValueError, match=r"the text has no 'dog'; an answer is a part of it, word for word"):
        align("a cat", "dog")
    with pytest.raises(ValueError, match=r"the text has no 'cat' at character 1;"):
        align("a cat", {"text": "cat", "answer_start": 1})
    with pytest.raises(ValueError, match=r"the answer 'cat' is nowhere read as a whole; raise max_length"):
        align("a cat", "cat", max_length=4)


def test_unlabelled_keeps_its_shape_in_a_batch():
    found = learn([], "cat")
    assert found.values[0].dim() == found.values[1].dim() == 1
    assert torch.full_like(found.values[0][:1], IGNORE).tolist() == [X]


def test_blanks_at_the_edges_need_no_token(tokenizer):
    for cell in ("cat ", " cat", {"text": " cat ", "answer_start": 3}):
        read = TextTransform(tokenizer, return_offsets=True)("the cat sees")
        assert SpanTarget("text").align(learn(cell).values[0], read)[0].tolist() == [0, 0, 3, 0, 0]


def test_an_answer_that_no_window_has_as_a_whole():
    with pytest.raises(
        ValueError, match="the answer 'answer' is nowhere read as a whole; raise max_length or window_overlap"
    ):
        align("aaaaaaa answer bbbb", "answer", max_length=10, overflow="window", window_overlap=0)
    with pytest.raises(ValueError, match="nowhere read as a whole"):
        align("a cat", "a cat", max_length=4)
