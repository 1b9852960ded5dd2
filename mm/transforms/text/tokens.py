"""Text -> token ids."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F

from mm.messages import listing
from mm.transforms.windows import check_limit, check_multiple, limit, room
from mm.types import Read


class Tokens:
    """Strings -> ids (T,) int64, by bytes (id = byte + 1, 0 is padding) or by a tokenizer's folder or hub name.

    max_length: tokens, special ones included; too_long: truncate, refuse or window, windows overlapping by `overlap`;
    pad_multiple: batches are padded to whole ones of so many tokens; places: also tell where each token lies in the
    text, as meta, all int32: `places` (T, 2), its first character and the one after its last, 0 and 0 of special
    tokens; `words` (T,), the number of the word that it begins, else -1, where words are what lies between blanks; and
    `characters` (L,), the text's code points; markers: strings that are a token each, and their ids.
    Errors: ValueError where the text is not a string, empty, or not valid UTF-8, or a window of it lacks a marker; or
    there is no such tokenizer, or it can't tell places.
    """

    def __init__(
        self,
        tokenizer: str,
        max_length: int | None = None,
        too_long: str = "truncate",
        overlap: float = 0.25,
        pad_multiple: int = 1,
        places: bool = False,
        markers: Mapping[str, int] | None = None,
    ):
        self.max_length = max_length
        self.overlap = overlap
        self.filler = torch.zeros(1, dtype=torch.long)
        self.tokenizer: Any = None
        self.start = self.end = torch.zeros(0, dtype=torch.long)  # the special tokens around each window
        self.markers = dict(markers or {})
        if tokenizer != "bytes":
            self.tokenizer = load_tokenizer(tokenizer, list(self.markers))
            # Not every tokenizer can say which special tokens it adds, but all add the same ones to any text.
            bare, whole = self._ids("a", add_special_tokens=False), self._ids("a")
            before = next(i for i in range(len(whole)) if torch.equal(whole[i : i + len(bare)], bare))
            self.start, self.end = whole[:before], whole[before + len(bare) :]
            if places and not self.tokenizer.is_fast:
                raise ValueError(f"tokenizer: '{tokenizer}' can't tell where its tokens lie in a text; use a fast one")
        self.places = places
        nothing = torch.zeros(1, dtype=torch.int32)
        blank = {"places": nothing.new_zeros(1, 2), "words": nothing - 1, "characters": nothing}
        self.meta: dict[str, torch.Tensor] = blank if places else {}
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
            read = limit(ids, self.max_length, self.too_long, self.overlap, "bytes")
            return self.placed(read, raw, byte_places(raw), 0, 0) if self.places else read
        whole = self._ids(raw)
        if not len(whole):
            raise ValueError("the tokenizer finds no token in the text")
        before, after = len(self.start), len(self.end)
        for marker, known in self.markers.items():
            if not (whole == known).any():
                raise ValueError(f"the text has no {marker}; every text needs {listing(list(self.markers))}")
        if self.max_length is None or len(whole) <= self.max_length:
            read = Read([whole], False)
        else:
            body = self._ids(raw, add_special_tokens=False)
            read = limit(body, self.max_length, self.too_long, self.overlap, "tokens", self.extra)
            read = read._replace(windows=[torch.cat([self.start, w, self.end]) for w in read.windows])
            for marker, known in self.markers.items():
                if not all((window == known).any() for window in read.windows):
                    raise ValueError(
                        f"{marker} is not within {self.max_length} tokens of the text; raise max_length, up to what "
                        "the encoder reads, or shorten the text"
                    )
        if not self.places:
            return read
        told = self.tokenizer(raw, verbose=False, add_special_tokens=False, return_offsets_mapping=True)
        return self.placed(read, raw, torch.tensor(told["offset_mapping"], dtype=torch.int32), before, after)

    def placed(self, read: Read, text: str, places: torch.Tensor, before: int, after: int) -> Read:
        """With the meta of its windows. places: (T, 2) of the whole text; before, after: special tokens of a window."""
        characters = torch.tensor([ord(letter) for letter in text], dtype=torch.int32)
        both = torch.cat([places, word_begins(text, places).unsqueeze(1)], dim=1)  # (T, 3)
        parts = limit(both, self.max_length, self.too_long, self.overlap, "tokens", self.extra).windows
        found = [F.pad(part[:, :2], (0, 0, before, after)) for part in parts]
        words = [F.pad(part[:, 2], (before, after), value=-1) for part in parts]
        each = zip(found, words, strict=True)
        return read._replace(meta=[{"places": p, "words": w, "characters": characters} for p, w in each])

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
        ids = torch.tensor(self.tokenizer(text, verbose=False, **how)["input_ids"], dtype=torch.long)
        if not self.markers:
            return ids
        # Their numbers in the tokenizer are other ones where the model's table has rows to spare.
        told = self.tokenizer.convert_tokens_to_ids(list(self.markers))
        swaps = [(ids == old, new) for old, new in zip(told, self.markers.values(), strict=True)]
        for where, new in swaps:
            ids[where] = new
        return ids


def word_begins(text: str, places: torch.Tensor) -> torch.Tensor:
    """Of each token the number of the word that it begins, else -1. (T, 2) -> (T,) int32"""
    starts = torch.tensor([found.start() for found in re.finditer(r"\S+", text)], dtype=torch.int32)
    # A tokenizer may count a blank before it to a token: its last character tells the word.
    word = torch.searchsorted(starts, (places[:, 1] - 1).contiguous(), right=True) - 1
    first = torch.cat([word.new_ones(1), word.diff()]) > 0
    return torch.where(first & (word >= 0), word, -1).int()


def byte_places(text: str) -> torch.Tensor:
    """Of every byte the character that it belongs to. -> (T, 2) int32"""
    sizes = torch.tensor([len(letter.encode()) for letter in text])
    first = torch.arange(len(text), dtype=torch.int32).repeat_interleave(sizes)
    return torch.stack([first, first + 1], dim=1)


def load_tokenizer(name: str, markers: Sequence[str] = ()) -> Any:
    """markers: strings that become tokens of it. Errors: ValueError where there is none of that name."""
    from transformers import AddedToken, AutoTokenizer  # slow to import, needed by some models only

    try:
        found = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
    except (OSError, ValueError, ImportError) as error:
        first = str(error).strip().split("\n")[0]
        raise ValueError(
            f"tokenizer: got '{name}', wanted bytes, or a folder or hub name of a tokenizer: {first}"
        ) from None
    found.add_tokens([AddedToken(marker, special=True, normalized=False) for marker in markers])
    return found
