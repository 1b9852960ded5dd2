"""Text -> token ids."""

from collections.abc import Sequence
from typing import Any

import torch

from mm.transforms.windows import check_limit, check_multiple, limit, room
from mm.types import Read


class Tokens:
    """Strings -> ids (T,) int64, by bytes (id = byte + 1, 0 is padding) or by a tokenizer's folder or hub name.

    max_length: tokens, special ones included; too_long: truncate, refuse or window, windows overlapping by `overlap`;
    pad_multiple: batches are padded to whole ones of so many tokens.
    Errors: ValueError where the text is not a string, empty, or not valid UTF-8, or there is no such tokenizer.
    """

    def __init__(
        self,
        tokenizer: str,
        max_length: int | None = None,
        too_long: str = "truncate",
        overlap: float = 0.25,
        pad_multiple: int = 1,
    ):
        self.max_length = max_length
        self.overlap = overlap
        self.filler = torch.zeros(1, dtype=torch.long)
        self.tokenizer: Any = None
        self.start = self.end = torch.zeros(0, dtype=torch.long)  # the special tokens around each window
        if tokenizer != "bytes":
            self.tokenizer = load_tokenizer(tokenizer)
            # Not every tokenizer can say which special tokens it adds, but all add the same ones to any text.
            bare, whole = self._ids("a", add_special_tokens=False), self._ids("a")
            before = next(i for i in range(len(whole)) if torch.equal(whole[i : i + len(bare)], bare))
            self.start, self.end = whole[:before], whole[before + len(bare) :]
        self.extra = len(self.start) + len(self.end)
        self.too_long = check_limit(max_length, too_long, overlap, self.extra)
        self.multiple = check_multiple(pad_multiple)

    def __call__(self, raw: Any, train: bool = False) -> Read:
        if not isinstance(raw, str):
            raise ValueError(f"got {type(raw).__name__}, wanted a text")
        if not raw:
            raise ValueError("the text is empty")
        try:
            data = raw.encode()
        except UnicodeEncodeError as error:  # bytes that were no UTF-8 arrive as lone surrogates
            raise ValueError(
                f"the text is not valid UTF-8 at character {error.start}; save the file as UTF-8"
            ) from None
        if self.tokenizer is None:
            ids = torch.frombuffer(bytearray(data), dtype=torch.uint8).long() + 1
            return limit(ids, self.max_length, self.too_long, self.overlap, "bytes")
        whole = self._ids(raw)
        if not len(whole):
            raise ValueError("the tokenizer finds no token in the text")
        if self.max_length is None or len(whole) <= self.max_length:
            return Read([whole], False)
        body = self._ids(raw, add_special_tokens=False)
        windows, cut = limit(body, self.max_length, self.too_long, self.overlap, "tokens", self.extra)
        return Read([torch.cat([self.start, w, self.end]) for w in windows], cut)

    def finish(self, x: torch.Tensor) -> torch.Tensor:
        return x

    def lengths(self, raw: Sequence[Any]) -> list[float]:
        texts = [x if isinstance(x, str) else "" for x in raw]
        if self.tokenizer is None:
            counts = [len(text.encode(errors="replace")) for text in texts]
        else:
            texts = [text.encode(errors="replace").decode() for text in texts]
            counts = [
                len(x) if text else 0 for x, text in zip(self.tokenizer(texts, verbose=False)["input_ids"], texts)
            ]
        how = self.max_length, self.too_long, self.overlap, self.multiple, self.extra
        return [float(room(count, *how)) for count in counts]

    def _ids(self, text: str, **how: Any) -> torch.Tensor:
        return torch.tensor(self.tokenizer(text, verbose=False, **how)["input_ids"], dtype=torch.long)


def load_tokenizer(name: str) -> Any:
    """Errors: ValueError where there is none of that name."""
    from transformers import AutoTokenizer  # slow to import, needed by some models only

    try:
        return AutoTokenizer.from_pretrained(name, trust_remote_code=False)
    except (OSError, ValueError, ImportError) as error:
        first = str(error).strip().split("\n")[0]
        raise ValueError(
            f"tokenizer: got '{name}', wanted bytes, or a folder or hub name of a tokenizer: {first}"
        ) from None
