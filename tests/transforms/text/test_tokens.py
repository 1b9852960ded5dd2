import os
import pickle
from pathlib import Path

import pytest
import torch

from mm.transforms.text.tokens import TextTransform, in_one_window


@pytest.fixture(scope="module")
def minilm() -> str:
    data = os.environ.get("MM_DATA")
    if not data or not (Path(data).parent / "models/all-MiniLM-L6-v2").is_dir():
        pytest.skip("needs all-MiniLM-L6-v2 in models/ beside the folder MM_DATA, which is not there")
    return str(Path(data).parent / "models/all-MiniLM-L6-v2")


TEXT = "The quick brown fox doesn't jump over the lazy dog, unbelievably; [SEP] it sleeps. " * 6


def test_bytes_by_hand() -> None:
    read = TextTransform("bytes")("aé\0")
    assert read.windows[0].tolist() == [98, 0xC3 + 1, 0xA9 + 1, 1]
    assert not read.cut
    assert read.windows[0].dtype == torch.int64


def test_bytes_too_long() -> None:
    assert TextTransform("bytes", 3)("abcdef").windows[0].tolist() == [98, 99, 100]
    assert TextTransform("bytes", 3)("abcdef").cut
    windows = TextTransform("bytes", 4, "window", 0.25)("abcdef").windows
    assert [w.tolist() for w in windows] == [[98, 99, 100, 101], [100, 101, 102, 103]]
    with pytest.raises(ValueError, match="6 bytes are too long, at most 3 are read"):
        TextTransform("bytes", 3, "error")("abcdef")


@pytest.mark.parametrize("raw", [5, None, b"ab", {"ab"}, 0.5])
def test_no_text(raw: object) -> None:
    with pytest.raises(ValueError, match=f"got {type(raw).__name__}, wanted a text"):
        TextTransform("bytes")(raw)


def test_empty_and_undecodable() -> None:
    with pytest.raises(ValueError, match="the text is empty"):
        TextTransform("bytes")("")
    with pytest.raises(ValueError, match="not valid UTF-8 at character 3; save the file as UTF-8"):
        TextTransform("bytes")(b"caf\xe9".decode("utf-8", "surrogateescape"))


def test_no_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="got 'a/b/tokenizer/text', wanted .*: there is no such folder"):
        TextTransform("a/b/tokenizer/text")
    with pytest.raises(ValueError, match=f"tokenizer: got '{tmp_path}', wanted bytes, or a folder or hub name"):
        TextTransform(str(tmp_path))


def test_a_real_tokenizer_truncates_as_itself_does(minilm: str) -> None:
    from transformers import AutoTokenizer

    own = AutoTokenizer.from_pretrained(minilm, split_special_tokens=True)  # [SEP] in a text is none
    tokens = TextTransform(minilm, max_length=20)
    whole = own(TEXT, verbose=False)["input_ids"]
    assert TextTransform(minilm)(TEXT).windows[0].tolist() == whole  # not cut at the 128 that its file says
    assert len(whole) > 128
    read = tokens(TEXT)
    assert read.cut
    assert read.windows[0].tolist() == own(TEXT, truncation=True, max_length=20)["input_ids"]
    left = AutoTokenizer.from_pretrained(minilm, split_special_tokens=True, truncation_side="left")
    end = TextTransform(minilm, max_length=20, overflow="truncate_left", return_offsets=True)(TEXT)
    assert end.windows[0].tolist() == left(TEXT, truncation=True, max_length=20)["input_ids"]
    first, after = end.meta[0]["places"][-2].tolist()  # of the last word, before [SEP]
    assert TEXT[first:after] == TEXT.rstrip()[-(after - first) :]
    short = tokens("a short one")
    assert not short.cut
    assert short.windows[0].tolist() == own("a short one")["input_ids"]
    exact = own.decode(whole[1:19])
    assert len(own(exact)["input_ids"]) == 20
    assert not tokens(exact).cut


@pytest.mark.parametrize(("most", "overlap"), [(20, 0.25), (18, 0.5), (50, 0.0), (100, 0.25)])
def test_a_real_tokenizer_windows_as_itself_does(minilm: str, most: int, overlap: float) -> None:
    from transformers import AutoTokenizer

    own = AutoTokenizer.from_pretrained(minilm, split_special_tokens=True)  # [SEP] in a text is none
    body = most - 2
    stride = body - round(body * (1 - overlap))
    expected = own(TEXT, truncation=True, max_length=most, stride=stride, return_overflowing_tokens=True)["input_ids"]
    read = TextTransform(minilm, most, "window", overlap)(TEXT)
    assert [w.tolist() for w in read.windows[:-1]] == expected[:-1]
    whole = own(TEXT)["input_ids"]
    assert read.windows[-1].tolist() == [whole[0], *whole[-body - 1 :]]  # whole, where theirs is what is left over
    assert not read.cut
    assert len(expected) > 1


def test_a_real_tokenizer_refuses(minilm: str) -> None:
    tokens = TextTransform(minilm, 20, "error")
    with pytest.raises(ValueError, match="tokens are too long, at most 20 are read"):
        tokens(TEXT)
    with pytest.raises(ValueError, match=r"max_length: got 2, wanted at least 3 \(2 are special tokens\)"):
        TextTransform(minilm, 2)
    assert pickle.loads(pickle.dumps(tokens))("hello").windows[0].tolist() == tokens("hello").windows[0].tolist()


WORDS = "café unbelievably\u00a0 d'accord, [SEP] x"


def check_places(read, text: str) -> None:
    for meta in read.meta:
        assert "".join(map(chr, meta["characters"].tolist())) == text
        starts = [text.index(word) for word in text.split()]
        for (first, end), word in zip(meta["places"].tolist(), meta["words"].tolist(), strict=True):
            assert (word == -1) or starts[word] == first < end


def test_places_of_bytes() -> None:
    read = TextTransform("bytes", return_offsets=True)(WORDS)
    check_places(read, WORDS)
    assert read.meta[0]["places"][3:5].tolist() == [[3, 4], [3, 4]]  # two bytes of one letter
    assert [w for w in read.meta[0]["words"].tolist() if w >= 0] == list(range(len(WORDS.split())))


@pytest.mark.parametrize("length", [None, 8])
def test_places_of_a_tokenizer(minilm: str, length: int | None) -> None:
    tokens = TextTransform(minilm, length, "window", 0.5, return_offsets=True)
    read = tokens(WORDS)
    check_places(read, WORDS)
    assert [len(m["places"]) for m in read.meta] == [len(m["words"]) for m in read.meta] == [*map(len, read.windows)]
    for window, meta in zip(read.windows, read.meta, strict=True):
        assert meta["places"][0].tolist() == meta["places"][-1].tolist() == [0, 0]  # special tokens
        for token, (first, end) in zip(window[1:-1].tolist(), meta["places"][1:-1].tolist(), strict=True):
            piece = tokens.tokenizer.convert_ids_to_tokens(token).removeprefix("##")
            assert piece.lower() in ("[unk]", WORDS[first:end].lower().replace("é", "e"))
    told = {w for m in read.meta for w in m["words"].tolist() if w >= 0}
    assert told == set(range(len(WORDS.split())))
    assert not TextTransform(minilm)(WORDS).meta


def test_markers_are_a_token_each(tokenizer: str) -> None:
    """Numbers as the encoder has them: a table may have more rows than the tokenizer has words."""
    tokens = TextTransform(tokenizer, marker_tokens={"<e1>": 30, "</e1>": 31}, return_offsets=True)
    text = "the <e1>old cat</e1> bites"
    read = tokens(text)
    assert read.windows[0].tolist() == [2, 4, 30, 10, 5, 31, 7, 3]
    assert tokens.lengths([text]) == [8]
    places = read.meta[0]["places"].tolist()
    assert [text[a:b] for a, b in places] == ["", "the", "<e1>", "old", "cat", "</e1>", "bites", ""]


def test_a_marker_that_is_lacking(tokenizer: str) -> None:
    markers = {"<e1>": 14, "<e2>": 15}
    with pytest.raises(ValueError, match="the text has no <e2>; every text needs <e1>, <e2>"):
        TextTransform(tokenizer, marker_tokens=markers)("the <e1> cat")
    with pytest.raises(ValueError, match="<e2> is not among the first 6 tokens of the text; raise max_length"):
        TextTransform(tokenizer, max_length=6, marker_tokens=markers)("<e1> the cat sees a <e2> dog")
    with pytest.raises(ValueError, match="<e1> is not among the first 6 tokens"):
        TextTransform(tokenizer, max_length=6, overflow="window", marker_tokens=markers)("<e1> the cat sees a <e2> dog")


def test_a_pair_is_read_as_its_tokenizer_reads_it(minilm: str) -> None:
    from transformers import AutoTokenizer

    own = AutoTokenizer.from_pretrained(minilm)
    question, passage = "Who sleeps?", "The dog sleeps, the fox jumps and the bird, unbelievably, sings all day."
    tokens = TextTransform(minilm, return_offsets=True)
    read = tokens([question, passage])
    assert read.windows[0].tolist() == own(question, passage)["input_ids"]
    found = {passage[a:b] for a, b in read.meta[0]["places"].tolist()}
    assert found == {
        "",
        *(
            passage[a:b]
            for a, b in own(passage, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
        ),
    }
    assert tokens.lengths([(question, passage), passage, None]) == [
        len(own(question, passage)["input_ids"]),
        len(own(passage)["input_ids"]),
        0,
    ]


def test_every_window_of_a_pair_has_its_first(tokenizer: str) -> None:
    tokens = TextTransform(tokenizer, max_length=8, overflow="window", window_overlap=0.5, return_offsets=True)
    read = tokens(("the cat", "a dog bites the bird"))
    assert [x.tolist() for x in read.windows] == [
        [2, 4, 5, 3, 9, 6, 7, 3],
        [2, 4, 5, 3, 7, 4, 12, 3],
    ]  # of 3, one after the other by 2
    assert read.meta[0]["words"].tolist() == [-1, -1, -1, -1, 0, 1, 2, -1]
    assert read.meta[1]["words"].tolist() == [-1, -1, -1, -1, -1, 3, 4, -1]  # 2 is the first window's
    assert tokens.lengths([("the cat", "a dog bites the bird")]) == [16]
    with pytest.raises(ValueError, match="the first text of the pair leaves none of 8 tokens"):
        tokens(("the cat sees the old bird", "a dog"))


def test_a_word_of_several_windows_is_told_where_it_is_farthest_from_a_cut() -> None:
    first, second, last = torch.tensor([0, 1, 2, 3, 4]), torch.tensor([2, 3, 4, 5, -1]), torch.tensor([4, 5, -1, 6])
    # 2 is two from the cut, against none; 3 one, one; 4 none, two, none; 5 one, one; before 0 and after 6 there is none
    wanted = [[0, 1, 2, 3, -1], [-1, -1, 4, 5, -1], [-1, -1, -1, 6]]
    assert [x.tolist() for x in in_one_window([first, second, last])] == wanted
    text = " ".join(f"w{i}" for i in range(40))
    for overlap in (0.0, 0.3, 0.5, 0.8):  # side by side they are in order, whatever the windows
        read = TextTransform("bytes", max_length=17, overflow="window", window_overlap=overlap, return_offsets=True)(
            text
        )
        told = torch.cat([meta["words"] for meta in read.meta])
        assert told[told >= 0].tolist() == list(range(40))


def test_a_pair_of_bytes_and_mistakes() -> None:
    assert TextTransform("bytes")(("a", "b")).windows[0].tolist() == [98, 32, 99]
    for raw, said in (([], "got 0 texts"), (["a"], "got 1 texts"), (("a", None), "NoneType"), (("", "a"), "empty")):
        with pytest.raises(ValueError, match=said):
            TextTransform("bytes")(raw)
