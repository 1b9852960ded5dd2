"""Tokenizers of texts: loaded from a folder or a hub, or trained on the data with the tokenizers library."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from itertools import chain, repeat
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from mm.cells import undecodable
from mm.files import whole

SPECIAL = {
    "pad_token": "<pad>",  # 0, as everywhere
    "unk_token": "<unk>",
    "bos_token": "<s>",
    "eos_token": "</s>",
    "mask_token": "<mask>",
}
INNER = 0xF0000  # from here on, letters of nobody's stand for those within a word
TOKENIZER_KINDS = ("bpe", "wordpiece", "unigram")


class TokenVocabulary(NamedTuple):
    """Facts about the tokens of a text transform.

    Attributes:
        mask: ID of the mask token; None: there is none.
        special: IDs of the special tokens, (S,).
        begins: Whether each token begins a word, (V,) bool.
    """

    mask: int | None
    special: Tensor
    begins: Tensor


def untrained_tokenizer(kind: str, size: int) -> tuple[Any, Any]:
    """Return a new tokenizer and its trainer.

    Args:
        kind: "bpe" (byte-level, Sennrich 2016, Radford 2019; it restores every text exactly), "wordpiece" (words are
            split at blanks and punctuation; Schuster 2012, as in BERT) or "unigram" (blanks are characters; Kudo 2018,
            as in SentencePiece).
        size: Size of the vocabulary.
    """
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    how = {"vocab_size": size, "special_tokens": list(SPECIAL.values()), "show_progress": False}
    if kind == "bpe":
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        return tokenizer, trainers.BpeTrainer(initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), **how)
    if kind == "wordpiece":
        tokenizer = Tokenizer(models.BPE())  # whose vocabulary wordpieces takes over
        tokenizer.normalizer = normalizers.BertNormalizer(lowercase=False, strip_accents=False)
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        return tokenizer, trainers.BpeTrainer(**how)
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    return tokenizer, trainers.UnigramTrainer(unk_token=SPECIAL["unk_token"], **how)


def wordpieces(tokenizer: Any, trainer: Any, texts: Sequence[str]) -> Any:
    """Return a trained WordPiece tokenizer.

    BPE is trained on words whose letters after the first one are marked, as "##" marks them in WordPiece. Its
    vocabulary becomes that of the result. The result is deterministic. `tokenizers.trainers.WordPieceTrainer` is not:
    it gives marked letters other ids in each run, and breaks ties by these ids.

    Args:
        tokenizer: Tokenizer whose normalizer and pre-tokenizer split the texts into words.
        trainer: A BPE trainer with the vocabulary size and the special tokens.
        texts: The training texts.
    """
    from tokenizers import Tokenizer, decoders, models

    words: Counter[str] = Counter()
    for text in texts:
        found = tokenizer.pre_tokenizer.pre_tokenize_str(tokenizer.normalizer.normalize_str(text))
        words.update(word for word, _ in found)
    letters = sorted({letter for word in words for letter in word})
    inner = {letter: chr(INNER + i) for i, letter in enumerate(letters)}
    outer = {other: letter for letter, other in inner.items()}
    trainer.initial_alphabet = letters  # a word that is new may begin with any of them
    bare = Tokenizer(models.BPE())  # words are apart already
    coded = (word[0] + "".join(inner[letter] for letter in word[1:]) for word in words)
    bare.train_from_iterator(chain.from_iterable(map(repeat, coded, words.values())), trainer)
    known = sorted(bare.get_vocab().items(), key=lambda pair: pair[1])
    special = set(SPECIAL.values())
    vocabulary = {}
    for token, _ in known:
        plain = token if token in special else "".join(outer.get(letter, letter) for letter in token)
        vocabulary[f"##{plain}" if token[0] in outer else plain] = len(vocabulary)
    made = Tokenizer(models.WordPiece(vocabulary, unk_token=SPECIAL["unk_token"]))
    made.normalizer, made.pre_tokenizer = tokenizer.normalizer, tokenizer.pre_tokenizer
    made.decoder = decoders.WordPiece()
    made.add_special_tokens(list(SPECIAL.values()))
    return made


def train_tokenizer(texts: Sequence[str], kind: str, size: int) -> Any:
    """Train a transformers tokenizer that adds <s> before a text, and </s> after it and between texts of a pair.

    Args:
        texts: The texts.
        kind: "bpe", "wordpiece" or "unigram".
        size: Maximum size of the vocabulary.

    Raises:
        ValueError: If the kind is unknown, if there is no text, or if the kind does not support the size.
    """
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    if kind not in TOKENIZER_KINDS:
        raise ValueError(
            f"tokenizer: got '{kind}', wanted one of {', '.join(TOKENIZER_KINDS)}, bytes, or a tokenizer's folder"
        )
    least = len(SPECIAL) + (256 if kind == "bpe" else 1)
    if size < least:
        raise ValueError(f"vocab_size: got {size}, wanted at least {least} tokens for tokenizer={kind}")
    if not any(texts):
        raise ValueError("tokenizer: there is no text to train it on; name a tokenizer's folder")
    tokenizer, trainer = untrained_tokenizer(kind, size)
    if kind == "wordpiece":
        tokenizer = wordpieces(tokenizer, trainer, texts)
    else:
        try:
            tokenizer.train_from_iterator(texts, trainer)
        except Exception as error:  # the library raises nothing more special
            raise ValueError(
                f"vocab_size: got {size}, with which tokenizer={kind} can't be trained: {error}"
            ) from error
    if tokenizer.get_vocab_size() > size:
        raise ValueError(
            f"vocab_size: got {size}, but the letters of the texts alone are {tokenizer.get_vocab_size()} tokens; "
            "raise it, or choose tokenizer=bpe, which reads bytes"
        )
    begin, end = (SPECIAL[name] for name in ("bos_token", "eos_token"))
    tokenizer.post_processor = TemplateProcessing(
        single=f"{begin} $A {end}",
        pair=f"{begin} $A {end} $B {end}",
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in (begin, end)],
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, clean_up_tokenization_spaces=False, **SPECIAL)


def train_cached_tokenizer(texts: Sequence[str], kind: str, size: int, folder: Path) -> Path:
    """Train a tokenizer on texts, unless it is already in the cache, and return its folder.

    Args:
        texts: The texts.
        kind: "bpe", "wordpiece" or "unigram".
        size: Maximum size of the vocabulary.
        folder: Folder of the cache, in which each tokenizer has a folder that is named by a digest of texts, kind and
            size.
    """
    import tokenizers
    from filelock import FileLock

    digest = hashlib.sha256(f"{tokenizers.__version__} {kind} {size}".encode())
    for text in texts:
        digest.update(text.encode(errors="surrogatepass") + b"\0")
    path = folder / f"{kind}-{digest.hexdigest()[:16]}"
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.lock"):
        if not path.exists():
            clean = [text for text in texts if not undecodable(text)]
            with whole(path) as part:
                train_tokenizer(clean, kind, size).save_pretrained(part)
    return path


def load_tokenizer(name: str, markers: Sequence[str] = ()) -> Any:
    """Load a tokenizer and add marker tokens.

    Args:
        name: Its folder or hub name.
        markers: Strings that become one token each.

    Raises:
        ValueError: If there is no such tokenizer.
    """
    from transformers import AddedToken, AutoTokenizer  # slow to import, needed by some models only

    try:
        # A folder has all of it: nothing is asked of a hub.
        found = AutoTokenizer.from_pretrained(name, trust_remote_code=False, local_files_only=Path(name).is_dir())
    except (OSError, ValueError, ImportError) as error:
        first = str(error).strip().split("\n")[0]
        if name.count("/") > 1 and not Path(name).exists():  # a hub name has at most one
            first = "there is no such folder (a model that reads bytes has none)"
        raise ValueError(
            f"tokenizer: got '{name}', wanted bytes, or a folder or hub name of a tokenizer: {first}"
        ) from None
    found.add_tokens([AddedToken(marker, special=True, normalized=False) for marker in markers])
    return found
