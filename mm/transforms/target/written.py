"""A text that is to be written, token by token."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mm.transforms.target.cells import text_of, undecodable
from mm.transforms.text.tokens import load_tokenizer
from mm.transforms.text.vocabulary import KINDS, trained
from mm.types import IGNORE, TargetData, TargetRead


class Written:
    """A cell is a text; its tokens are told one after the other, and then that it ends.

    tokenizer: bpe, wordpiece or unigram, trained on the training rows' texts to at most `vocabulary` tokens and kept
    below `folder`, or a tokenizer's folder or hub name; max_length: tokens of a text, its end included.
    Errors: ValueError where the tokenizer has no tokens for begin and end.
    """

    kind = "text"
    examples = ("a dog runs", "two cats", "a dog", "cats run", "two dogs sleep")

    def __init__(self, tokenizer: str, vocabulary: int, max_length: int, folder: str = ".cache/tokenizers"):
        if max_length < 2:
            raise ValueError(f"reads.max_length: got {max_length}, wanted at least 2 tokens")
        self.name = tokenizer
        self.vocabulary = vocabulary
        self.max_length = max_length
        self.folder = Path(folder)
        self.tokenizer: Any = None  # made when it is needed

    def learn(self, cells: Sequence[Any], train: np.ndarray, known: TargetData | None) -> TargetRead:
        """-> of every row (tokens,) int64, the last of them the end; one IGNORE where unlabelled"""
        texts = [text_of(cell) for cell in cells]
        if self.name in KINDS:
            learnt = [texts[row] for row in np.flatnonzero(train) if texts[row]]
            self.name = str(trained(learnt, self.name, self.vocabulary, self.folder))
        begin, end = self.ends()
        found = self.tokenizer([text.encode(errors="replace").decode() for text in texts], add_special_tokens=False)
        values, faults = [], {}
        for row, (text, ids) in enumerate(zip(texts, found["input_ids"], strict=True)):
            values.append(torch.tensor([*ids, end] if text else [IGNORE]))
            if undecodable(text):
                faults[row] = "the text is not valid UTF-8; save the file as UTF-8"
            elif len(values[row]) > self.max_length:
                faults[row] = (
                    f"the text to write has {len(ids)} tokens and an end, at most {self.max_length} are written; raise "
                    "reads.max_length of its head, or shorten it"
                )
            if row in faults:
                values[row] = torch.tensor([IGNORE])
        facts = {"tokenizer": self.name, "vocabulary": len(self.tokenizer), "begin": begin, "end": end}
        return TargetRead(values, TargetData(kind=self.kind, facts=facts | {"longest": self.max_length}), faults)

    def ends(self) -> tuple[int, int]:
        """The tokens before and behind every text."""
        self.tokenizer = self.tokenizer or load_tokenizer(self.name)
        has = self.tokenizer
        begin = has.cls_token_id if has.bos_token_id is None else has.bos_token_id
        end = has.sep_token_id if has.eos_token_id is None else has.eos_token_id
        if begin is None or end is None:
            raise ValueError(f"reads.tokenizer: {self.name} has no token for a text's begin or end; choose another")
        return begin, end

    def strata(self, cell: Any) -> None:
        return None

    def readable(self, target: Tensor, data: TargetData) -> str | None:
        if (target == IGNORE).all():
            return None
        self.ends()
        return self.tokenizer.decode(target[target != IGNORE], skip_special_tokens=True)
