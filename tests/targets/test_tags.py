import numpy as np
import pytest
import torch

from mm.targets.tags import TagTarget, to_bio
from mm.transforms.text.tokens import TextTransform
from mm.types import IGNORE, EncodedInput

ALL = np.ones(3, dtype=bool)
X = IGNORE


@pytest.mark.parametrize(
    ("scheme", "tags", "wanted"),
    [
        ("bio", "B-a I-a O B-b", "B-a I-a O B-b"),
        # two entities of one type side by side; another type begins one by itself (Ramshaw and Marcus 1995)
        ("iob1", "I-a I-a B-a I-b O I-b", "B-a I-a B-a B-b O B-b"),
        ("bioes", "S-a B-b I-b E-b O S-b", "B-a B-b I-b I-b O B-b"),
    ],
)
def test_schemes_become_bio(scheme, tags, wanted):
    assert to_bio(tags.split(), scheme) == wanted.split()


def test_classes_are_both_tags_of_every_type_of_training_rows():
    cells = ["B-place O", None, ["O", "B-who", "I-who"]]
    values, data, faults, _ = TagTarget("text").fit(cells, ALL, None)
    assert data.classes == ("O", "B-place", "I-place", "B-who", "I-who")
    assert [x.tolist() for x in values] == [[1, 0], [X], [0, 3, 4]]
    assert data.facts == {"counts": [2, 1, 0, 1, 1], "input": "text", "scheme": "bio"}
    assert not faults
    assert [TagTarget("text").decode(x, data) for x in values] == [["B-place", "O"], None, ["O", "B-who", "I-who"]]


def test_wrong_tags_are_named():
    cells = ["B-place O", "E-place", "B-animal"]
    values, _, faults, _ = TagTarget("text").fit(cells, np.array([True, False, False]), None)
    assert [x.tolist() for x in values] == [[1, 0], [X], [X]]
    assert "got the tag 'E-place', wanted O, B-TYPE, I-TYPE" in faults[1]
    assert "unknown label 'B-animal'" in faults[2]
    with pytest.raises(ValueError, match="target_codec.scheme: got 'iob', wanted one of bio, iob1, bioes"):
        TagTarget("text", "iob")


def test_a_word_is_told_at_its_first_token():
    read = TextTransform("bytes", return_offsets=True)("ab c")
    assert [x.tolist() for x in TagTarget("text").align(torch.tensor([3, 1]), read)] == [[3, X, X, 1]]
    assert [x.tolist() for x in TagTarget("text").align(torch.tensor([X]), read)] == [[X] * 4]


def test_each_word_has_its_tag_in_one_window():
    tokens = TextTransform("bytes", max_length=4, overflow="window", window_overlap=0.5, return_offsets=True)
    read = tokens("ab cd ef")  # "ab c", " cd ", "d ef"
    found = TagTarget("text").align(torch.tensor([1, 2, 3]), read)
    assert [x.tolist() for x in found] == [[1, X, X, X], [X, 2, X, X], [X, X, 3, X]]


def test_words_and_tags_must_be_as_many():
    read = TextTransform("bytes", return_offsets=True)("a b")
    for tags in ([1], [1, 1, 1]):
        with pytest.raises(ValueError, match=f"{len(tags)} tags, but the text has 2 words"):
            TagTarget("text").align(torch.tensor(tags), read)
    cut = TextTransform("bytes", max_length=3, return_offsets=True)("a b c d")
    assert TagTarget("text").align(torch.tensor([1, 2, 3, 4]), cut)[0].tolist() == [1, X, 2]


def test_an_entity_that_is_cut_at_its_beginning_begins_with_what_is_left():
    tags = torch.tensor([0, 1, 2, 4, 3])  # O B-a I-a I-b B-b
    for length, wanted in [(9, [0, X, 1, X, 2, X, 4, X, 3]), (6, [X, 1, X, 4, X, 3]), (4, [X, 3, X, 3]), (2, [X, 3])]:
        read = TextTransform("bytes", max_length=length, overflow="truncate_left", return_offsets=True)("a b c d e")
        assert TagTarget("text").align(tags, read)[0].tolist() == wanted
    whole = TextTransform("bytes", max_length=3, return_offsets=True)(
        "c d e"
    )  # cut on its other side: word 0 is its own beginning
    assert TagTarget("text").align(torch.tensor([2, 4, 3]), whole)[0].tolist() == [2, X, 4]


ENDED = [["O", "E-a"], ["S-a", "E-a"], ["B-a", "E-a", "I-a"], ["S-a", "I-a"], ["B-a", "E-a", "E-a"]]  # of bioes


@pytest.mark.parametrize("scheme", ["bio", "bioes"])
def test_what_goes_on_without_a_beginning_is_of_another_scheme(scheme):
    for tags in (["O", "I-a"], ["I-a"], ["B-b", "I-a"], *(ENDED if scheme == "bioes" else [])):
        with pytest.raises(ValueError, match=f"'{tags[-1]}' where no 'a' goes before; .*mend the tags") as told:
            to_bio(tags, scheme)
        assert ("target_codec.scheme=iob1" in str(told.value)) == (scheme == "bio")
    assert to_bio(["I-a", "I-a", "B-a", "O", "I-b"], "iob1") == ["B-a", "I-a", "B-a", "O", "B-b"]


def test_a_word_that_is_no_token_keeps_its_tag_out():
    """As a tokenizer drops a sign that it does not know."""
    meta = {"words": torch.tensor([-1, 0, 2, -1]), "characters": torch.tensor([ord(x) for x in "a \ufe0f b \ufe0f"])}
    found = TagTarget("text").align(torch.tensor([3, 0, 1, 0]), EncodedInput([torch.ones(4)], False, [meta]))
    assert [x.tolist() for x in found] == [[X, 3, 1, X]]


def test_plain_tags_are_no_entities():
    """Parts of speech: each is a class of its own, with no O among them, and a cut changes none."""
    tags = TagTarget("text", scheme="plain")
    values, data, faults, *_ = tags.fit(["DET NOUN", None, ["NOUN", "I-x"]], ALL, None)
    assert data.classes == ("DET", "I-x", "NOUN") and not faults
    assert data.facts["scheme"] == "plain" and data.facts["counts"] == [1, 1, 2]
    assert [x.tolist() for x in values] == [[0, 2], [X], [2, 1]]
    read = TextTransform("bytes", 4, "truncate_left", return_offsets=True)("one two")
    assert tags.align(torch.tensor([2, 2]), read)[0].tolist() == [X, 2, X, X]
    with pytest.raises(
        ValueError, match=r"got the tag 'NOUN'.*target_codec.scheme, plain for tags that are no entities"
    ):
        to_bio(["NOUN"], "bio")


@pytest.mark.parametrize(
    ("scheme", "cell", "message"),
    [
        ("bio", "O O", "no training row has an entity"),
        ("bio", "", "no training row has an entity"),
        ("plain", "", "no training row has a tag"),
    ],
)
def test_training_rows_without_a_tag_are_an_error_unless_there_is_a_trained_model(scheme, cell, message):
    codec, train = TagTarget("text", scheme), np.array([True, True, False])
    with pytest.raises(ValueError, match=message):
        codec.fit([cell, cell, "B-a"], train, None)
    known = codec.fit(["B-a", cell, cell], ALL, None).data
    assert codec.fit([cell, cell, "B-a"], train, known).data.classes == known.classes
