"""Trained tokenizers beside the library's own, what they give back, and where they lie."""

import pytest

from mm.tokenizers import SPECIAL, train_cached_tokenizer, train_tokenizer
from mm.transforms.text.tokens import TextTransform

TEXTS = ["the cat sat on the mat", "the dog sat on the log", "a cat and a dog", "naïve café – 東京"] * 3


@pytest.mark.parametrize("kind", ["bpe", "wordpiece", "unigram"])
def test_special_tokens_stand_around_a_text_and_between_two(kind):
    tokenizer = train_tokenizer(TEXTS, kind, 300)
    assert [tokenizer.convert_tokens_to_ids(token) for token in SPECIAL.values()] == [0, 1, 2, 3, 4]
    assert tokenizer.pad_token_id == 0
    one, two = tokenizer("the cat").input_ids, tokenizer("a dog").input_ids
    assert (one[0], one[-1]) == (2, 3)
    assert tokenizer("the cat", "a dog").input_ids == [*one, *two[1:]]
    assert tokenizer.decode(one, skip_special_tokens=True) == "the cat"
    assert len(tokenizer) <= 300


def test_bytes_give_back_what_was_never_seen():
    tokenizer = train_tokenizer(TEXTS, "bpe", 270)
    for text in ("  two blanks\n", "Привет 🙂", "x" * 50):
        assert tokenizer.decode(tokenizer(text, add_special_tokens=False).input_ids) == text


def test_pairs_that_come_often_are_merged_first():
    """By hand: of `ababab` the pair ab, then ab+ab."""
    tokenizer = train_tokenizer(["ababab"], "bpe", 263)
    assert tokenizer.tokenize("abab") == ["abab"]
    assert tokenizer.tokenize("ab") == ["ab"]


def test_is_made_once(tmp_path):
    first = train_cached_tokenizer(TEXTS, "bpe", 280, tmp_path)
    file = first / "tokenizer.json"
    stamp = file.stat().st_mtime_ns
    assert train_cached_tokenizer(TEXTS, "bpe", 280, tmp_path) == first
    assert file.stat().st_mtime_ns == stamp
    others = {
        train_cached_tokenizer(TEXTS[1:], "bpe", 280, tmp_path),
        train_cached_tokenizer(TEXTS, "bpe", 281, tmp_path),
    }
    assert len(others | {first}) == 3
    read = TextTransform(str(first))("the cat")
    assert read.windows[0][[0, -1]].tolist() == [2, 3]


@pytest.mark.parametrize(
    ("texts", "kind", "size", "said"),
    [
        (TEXTS, "bytepair", 300, "tokenizer: got 'bytepair', wanted one of bpe, wordpiece, unigram, bytes"),
        (TEXTS, "bpe", 100, "vocab_size: got 100, wanted at least 261 tokens for tokenizer=bpe"),
        (["", ""], "wordpiece", 300, "there is no text to train it on"),
    ],
)
def test_mistakes(texts, kind, size, said):
    with pytest.raises(ValueError, match=said):
        train_tokenizer(texts, kind, size)


@pytest.mark.parametrize("kind", ["bpe", "wordpiece", "unigram"])
def test_is_the_same_each_time(kind):
    texts = [f"{a}{b}{c} ab ba cab" for a in "abc" for b in "abc" for c in "abcd"]
    first, again = (train_tokenizer(texts, kind, 320 if kind == "bpe" else 40).get_vocab() for _ in range(2))
    assert first == again


def test_wordpiece_is_the_librarys_vocabulary():
    """Beside its own trainer, which breaks ties as it comes: the pieces that come often, and how words fall apart."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    texts = ["low lower lowest newer newest wider widest"] * 5
    own = Tokenizer(models.WordPiece(unk_token="<unk>"))
    own.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    own.train_from_iterator(texts, trainers.WordPieceTrainer(vocab_size=80, special_tokens=list(SPECIAL.values())))
    ours = train_tokenizer(texts, "wordpiece", 80)
    assert set(ours.get_vocab()) == set(own.get_vocab())
    assert ours.tokenize("lowest newer zz") == own.encode("lowest newer zz").tokens


def test_too_few_tokens_for_the_letters():
    for kind in ("wordpiece", "unigram"):
        with pytest.raises(ValueError, match="vocab_size: got 10,"):
            train_tokenizer(["abcdefghijklmnopqrstuvwxyz zyxw"], kind, 10)


def test_texts_that_look_like_special_tokens_are_texts(tmp_path):
    train_tokenizer(TEXTS, "bpe", 300).save_pretrained(tmp_path)
    read = TextTransform(str(tmp_path), return_offsets=True)("a <mask> </s>")
    assert (read.windows[0] == 4).sum() == 0 and (read.windows[0] == 3).sum() == 1
    assert len(read.windows[0]) == TextTransform(str(tmp_path)).lengths(["a <mask> </s>"])[0]
