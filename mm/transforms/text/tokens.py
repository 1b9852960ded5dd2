"""Text -> token ids."""

from typing import Any

import torch
from torch import Tensor

from mm.transforms.windows import check_too_long, limit
from mm.types import Read


class Tokens:
    """Strings -> ids (T,) int64, by bytes (id = byte + 1, 0 is padding) or by a tokenizer's folder or hub name.

    max_length: tokens, special ones included; too_long: truncate, refuse or window, windows overlapping by `overlap`.
    Errors: ValueError where the text is not a string, empty, or not valid UTF-8.
    """

    def __init__(self, tokenizer: str, max_length: int | None = None, too_long: str = "truncate", overlap: float = 0.25):
        self.max_length = max_length
        self.too_long = check_too_long(too_long)
        self.overlap = overlap
        self.filler = torch.zeros(1, dtype=torch.long)
        self.tokenizer: Any = None
        if tokenizer != "bytes":
            from transformers import AutoTokenizer  # slow to import, needed by some models only

            self.tokenizer = AutoTokenizer.from_pretrained(tokenizer)

    def __call__(self, raw: Any, train: bool = False) -> Read:
        if not isinstance(raw, str):
            raise ValueError(f"got {type(raw).__name__}, wanted a text")
        if not raw:
            raise ValueError("the text is empty")
        try:
            data = raw.encode()
        except UnicodeEncodeError as error:  # bytes that were no UTF-8 arrive as lone surrogates
            raise ValueError(f"the text is not valid UTF-8 at character {error.start}; save the file as UTF-8") from None
        if self.tokenizer is None:
            ids = torch.frombuffer(bytearray(data), dtype=torch.uint8).long() + 1
            return limit(ids, self.max_length, self.too_long, self.overlap, "bytes")
        return self._tokenize(raw)

    def _tokenize(self, raw: str) -> Read:
        whole = self.tokenizer(raw, verbose=False)["input_ids"]
        if self.max_length is None or len(whole) <= self.max_length:
            return Read([torch.tensor(whole)], False)
        special = self.tokenizer.num_special_tokens_to_add()
        body = torch.tensor(self.tokenizer(raw, add_special_tokens=False, verbose=False)["input_ids"])
        windows, cut = limit(body, self.max_length - special, self.too_long, self.overlap, "tokens")
        return Read([self._wrap(w) for w in windows], cut)

    def _wrap(self, body: Tensor) -> Tensor:
        return torch.tensor(self.tokenizer.build_inputs_with_special_tokens(body.tolist()))
