"""Target codec for text generation: a text as a sequence of tokens."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mm.cells import text_fault, text_of
from mm.configurable import Configurable
from mm.messages import say
from mm.tokenizers import TOKENIZER_KINDS, load_tokenizer, train_cached_tokenizer
from mm.types import IGNORE, EncodedTarget, TargetData


class TextTarget(Configurable):
    """Encode a text as token ids, followed by an end-of-sequence token.

    Args:
        tokenizer: "bpe", "wordpiece" or "unigram", trained on the texts of the training rows; or the folder or Hugging
            Face hub name of a tokenizer.
        vocab_size: Maximum vocabulary size of a tokenizer that is trained.
        max_length: Maximum number of tokens of a text, including its end. A training row with a longer text is reported
            as faulty. In other rows the tokens are truncated, but metrics compare with the complete text.
        folder: Folder in which trained tokenizers are cached.

    Raises:
        ValueError: If `max_length` is below 2, or if the tokenizer has no end-of-sequence token.
    """

    kind = "text"
    examples = ("a dog runs", "two cats", "a dog", "cats run", "two dogs sleep")

    def __init__(
        self,
        tokenizer: str = "bpe",
        vocab_size: int = 8000,
        max_length: int = 128,
        folder: str = ".cache/tokenizers",
    ):
        if max_length < 2:
            raise ValueError(f"target_codec.max_length: got {max_length}, wanted at least 2 tokens")
        self.tokenizer = tokenizer
        self.vocab_size = vocab_size
        self.max_length = max_length
        self.folder = Path(folder)

    def fit(self, cells: Sequence[Any], train: np.ndarray, known: TargetData | None) -> EncodedTarget:
        """Encode the cells of all rows; the values are one tensor (tokens,) int64 of token ids per row.

        The last token is the end-of-sequence token, unless the text was truncated. An unlabelled row has a single
        IGNORE.

        Args:
            cells: Cells of all rows, (N,).
            train: Whether each row is a training row, (N,) bool; the tokenizer is trained on the training rows.
            known: Target data of a trained model, whose tokenizer is used instead; None: there is no such model.
        """
        texts = [text_of(cell) for cell in cells]
        name = self.tokenizer if known is None else known.facts["tokenizer"]
        if name in TOKENIZER_KINDS:
            learnt = [texts[row] for row in np.flatnonzero(train) if texts[row]]
            name = str(train_cached_tokenizer(learnt, name, self.vocab_size, self.folder))
        tokenizer = load_tokenizer(name)
        begin, end = ends(tokenizer, name)
        plain = [text.encode(errors="replace").decode() for text in texts]
        # Text that looks like a special token is encoded as ordinary text: an end token would teach the model to stop.
        found = tokenizer(plain, add_special_tokens=False, split_special_tokens=True)
        values, faults = [], {}
        for row, (text, ids) in enumerate(zip(texts, found["input_ids"], strict=True)):
            values.append(torch.tensor([*ids, end] if text else [IGNORE]))
            wrong = text_fault(text)
            if wrong is not None:
                faults[row] = wrong
            elif len(values[row]) > self.max_length and known is None and train[row]:
                faults[row] = (
                    f"the text to write has {len(ids)} tokens and an end, at most {self.max_length} are written; raise "
                    "target_codec.max_length of its head, or shorten it"
                )
            values[row] = torch.tensor([IGNORE]) if row in faults else values[row][: self.max_length]
        cut = [row for row, ids in enumerate(found["input_ids"]) if len(ids) >= self.max_length and row not in faults]
        if cut:
            say(
                f"texts to write of more than {self.max_length} tokens: {len(cut)}, which no model of "
                "target_codec.max_length can write; they are measured whole"
            )
        facts = {"tokenizer": name, "vocab_size": len(tokenizer), "bos_token_id": begin, "eos_token_id": end}
        data = TargetData(kind=self.kind, facts=facts | {"max_length": self.max_length})
        # Some tokenizers do not restore the exact text, and metrics would then compare with an easier text.
        written = [None if row in faults or not text else text for row, text in enumerate(texts)]
        return EncodedTarget(values, data, faults, written)

    def strata(self, cell: Any) -> None:
        return None

    def decode(self, target: Tensor, data: TargetData) -> str | None:
        if (target == IGNORE).all():
            return None
        return load_tokenizer(data.facts["tokenizer"]).decode(target[target != IGNORE], skip_special_tokens=True)


def ends(tokenizer: Any, name: str) -> tuple[int, int]:
    """Return the ids of the tokens that begin and end a generated text.

    The begin token is the BOS or CLS token, or the end token if the tokenizer has neither. The end token is the EOS or
    SEP token.

    Raises:
        ValueError: If the tokenizer has neither an EOS nor a SEP token.
    """
    begin = tokenizer.cls_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id
    end = tokenizer.sep_token_id if tokenizer.eos_token_id is None else tokenizer.eos_token_id
    if end is None:
        raise ValueError(f"target_codec.tokenizer: {name} has no token for a text's end; choose another")
    return end if begin is None else begin, end
