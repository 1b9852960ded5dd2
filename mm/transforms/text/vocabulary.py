"""Tokenizers that are trained on the data, by the tokenizers library."""

import hashlib
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mm.transforms.target.cells import undecodable

SPECIAL = {
    "pad_token": "<pad>",  # 0, as everywhere
    "unk_token": "<unk>",
    "bos_token": "<s>",
    "eos_token": "</s>",
    "mask_token": "<mask>",
}
KINDS = ("bpe", "wordpiece", "unigram")


def parts(kind: str, size: int) -> tuple[Any, Any]:
    """A tokenizer that knows nothing yet, and what trains it.

    bpe: byte-level (Sennrich 2016, Radford 2019), gives back every text as it was; wordpiece: words apart at blanks and
    punctuation (Schuster 2012, as BERT); unigram: blanks are characters (Kudo 2018, as SentencePiece).
    """
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    how = {"vocab_size": size, "special_tokens": list(SPECIAL.values()), "show_progress": False}
    if kind == "bpe":
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        return tokenizer, trainers.BpeTrainer(initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), **how)
    if kind == "wordpiece":
        tokenizer = Tokenizer(models.WordPiece(unk_token=SPECIAL["unk_token"]))
        tokenizer.normalizer = normalizers.BertNormalizer(lowercase=False, strip_accents=False)
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        tokenizer.decoder = decoders.WordPiece()
        return tokenizer, trainers.WordPieceTrainer(**how)
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    return tokenizer, trainers.UnigramTrainer(unk_token=SPECIAL["unk_token"], **how)


def train_tokenizer(texts: Sequence[str], kind: str, size: int) -> Any:
    """A transformers tokenizer that puts <s> before a text and </s> behind, and between the two of a pair.

    size: tokens it has at most. Errors: ValueError for another kind, no text, or a size that the kind can't have.
    """
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    if kind not in KINDS:
        raise ValueError(f"tokenizer: got '{kind}', wanted one of {', '.join(KINDS)}, bytes, or a tokenizer's folder")
    least = len(SPECIAL) + (256 if kind == "bpe" else 1)
    if size < least:
        raise ValueError(f"vocabulary: got {size}, wanted at least {least} tokens for tokenizer={kind}")
    if not any(texts):
        raise ValueError("tokenizer: there is no text to train it on; name a tokenizer's folder")
    tokenizer, trainer = parts(kind, size)
    tokenizer.train_from_iterator(texts, trainer)
    begin, end = (SPECIAL[name] for name in ("bos_token", "eos_token"))
    tokenizer.post_processor = TemplateProcessing(
        single=f"{begin} $A {end}",
        pair=f"{begin} $A {end} $B {end}",
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in (begin, end)],
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, clean_up_tokenization_spaces=False, **SPECIAL)


def trained(texts: Sequence[str], kind: str, size: int, folder: Path) -> Path:
    """The folder of a tokenizer trained on these texts, below `folder`; made once, named by what it was made from."""
    import tokenizers
    from filelock import FileLock

    told = hashlib.sha256(f"{tokenizers.__version__} {kind} {size}".encode())
    for text in texts:
        told.update(text.encode(errors="surrogatepass") + b"\0")
    path = folder / f"{kind}-{told.hexdigest()[:16]}"
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.lock"):
        if not path.exists():
            clean = [text for text in texts if not undecodable(text)]
            part = path.with_name(path.name + ".part")
            shutil.rmtree(part, ignore_errors=True)
            train_tokenizer(clean, kind, size).save_pretrained(part)
            os.replace(part, path)
    return path
