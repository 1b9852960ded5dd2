from collections import Counter
from itertools import pairwise

import numpy as np
import pytest

from mm.transforms.corrupt.text import NEAR, Typos, WordDrop, WordSwap

ALL = [Typos(1.0), WordDrop(1.0), WordSwap(1.0)]
TEXT = "the quick brown fox jumps over the lazy dog and runs away from it"


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize("corruption", ALL)
@pytest.mark.parametrize("text", [TEXT, "  two\n lines\t", "a", " ", "Straße, 漢字!", "\udcff"])
def test_severity_0_changes_nothing_and_1_leaves_something(corruption, text):
    assert corruption(text, 0.0, rng()) == text
    for seed in range(30):
        assert corruption(text, 1.0, rng(seed)).strip() or not text.strip()


def test_typos_hit_so_many_letters():
    words = Typos(0.4)("hello " * 4000, 0.5, rng()).split(" ")
    # a word stays where none of its letters is hit, nor the next one's first letter swapped with the space between
    assert Counter(words)["hello"] / 4000 == pytest.approx(0.8**5 * (1 - 0.2 / 4), abs=0.02)


def test_neighbours_on_the_keyboard():
    assert sorted(NEAR["s"]) == sorted("weadzx")
    assert sorted(NEAR["q"]) == sorted("wa")
    assert all(key in NEAR[other] for key, others in NEAR.items() for other in others)


def test_typos_keep_capitals_and_what_is_no_letter():
    typed = Typos(1.0)("ABC, " * 200, 1.0, rng())
    assert typed.upper() == typed
    assert typed.count(",") == 200


def test_dropped_words_stay_dropped_as_severity_rises():
    kept = [WordDrop(1.0)(TEXT, s, rng()).split() for s in (0.2, 0.5, 0.8, 1.0)]
    for more, fewer in pairwise(kept):
        assert not Counter(fewer) - Counter(more)
    assert len(kept[-1]) == 1
    words = " ".join(map(str, range(10_000)))
    assert len(WordDrop(0.5)(words, 0.6, rng()).split()) == pytest.approx(7000, abs=150)


def test_swapped_words_are_the_same_words():
    words = [str(i) for i in range(1000)]
    swapped = WordSwap(1.0)(" ".join(words), 0.3, rng()).split()
    assert sorted(swapped) == sorted(words)
    assert sum(a != b for a, b in zip(words, swapped)) == pytest.approx(300, abs=50)
