"""Transform of texts into token ids."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F

from mm.configurable import Configurable
from mm.messages import listing
from mm.tokenizers import TokenVocabulary, load_tokenizer
from mm.transforms.windows import check_limit, check_multiple, limit, room
from mm.types import EncodedInput

SEPARATOR = 31  # "unit separator"


class TextTransform(Configurable):
    """Convert texts to token ids (T,) int64: bytes (id = byte + 1, 0 is padding) or the tokens of a tokenizer.

    The raw input may be a pair of texts, such as a question and a passage. Every window then contains the complete
    first text before a part of the second, with the separator tokens of the tokenizer between them (bytes: one byte
    31).

    Args:
        tokenizer: `bytes`, or the folder or Hugging Face hub name of a tokenizer.
        max_length: Maximum number of tokens, including special tokens; None: no limit.
        overflow: Handling of longer texts: `truncate`, `truncate_left` (keep the end), `error`, or `window` (split into
            windows, which together have the weight of one row in the loss).
        window_overlap: Fraction of a window that the next window repeats.
        pad_multiple: Number of tokens to a multiple of which batches are padded.
        return_offsets: Whether `meta` contains the offsets of the tokens in the text, or in the second text of a pair.
            All are int32: `places` (T, 2), the first character of each token and the character after its last, 0 and 0
            for special tokens; `words` (T,), the index of the word that begins with the token, else -1, with words
            separated by blanks; and `characters` (L,), the Unicode code points of the text.
        marker_tokens: Strings that are one token each and that every text must contain, with their ids.

    Raises:
        ValueError: If the tokenizer can't be loaded or has no offsets. Calls of the transform raise it if a text is not
            a string, is empty or is not valid UTF-8, or if a window does not contain all marker tokens.
    """

    def __init__(
        self,
        tokenizer: str,
        max_length: int | None = None,
        overflow: str = "truncate",
        window_overlap: float = 0.25,
        pad_multiple: int = 1,
        return_offsets: bool = False,
        marker_tokens: Mapping[str, int] | None = None,
    ):
        self.max_length = max_length
        self.window_overlap = window_overlap
        self.filler = torch.zeros(1, dtype=torch.long)
        self.tokenizer: Any = None
        nothing = torch.zeros(0, dtype=torch.long)
        # The special tokens around a single text; and those before, between and after the texts of a pair.
        self.around, self.parting = (nothing, nothing), (nothing, torch.tensor([SEPARATOR + 1]), nothing)
        self.markers = dict(marker_tokens or {})
        # Text that looks like a special token is encoded as ordinary text, unless there are marker tokens.
        self.how = {"verbose": False, "split_special_tokens": not self.markers}
        if tokenizer != "bytes":
            self.tokenizer = load_tokenizer(tokenizer, list(self.markers))
            # Not every tokenizer declares its special tokens, but each adds the same ones to every text.
            bare = self.tokenize("a")
            before, after = cut_out(self.tokenize("a", add_special_tokens=True), bare)
            first, rest = cut_out(self.tokenize("a", "a", add_special_tokens=True), bare)
            self.around, self.parting = (before, after), (first, *cut_out(rest, bare))
            if return_offsets and not self.tokenizer.is_fast:
                raise ValueError(f"tokenizer: '{tokenizer}' can't tell where its tokens lie in a text; use a fast one")
        self.return_offsets = return_offsets
        blank = torch.zeros(1, dtype=torch.int32)
        told = {"places": blank.new_zeros(1, 2), "words": blank - 1, "characters": blank}
        self.meta: dict[str, torch.Tensor] = told if return_offsets else {}
        self.overflow = check_limit(max_length, overflow, window_overlap, sum(map(len, self.around)))
        self.multiple = check_multiple(pad_multiple)
        self.random = False

    def __call__(self, raw: Any, train: bool = False) -> EncodedInput:
        pair = isinstance(raw, list | tuple)
        if pair and len(raw) != 2:
            raise ValueError(f"got {len(raw)} texts, wanted one or a pair")
        *before, text = [check_text(x) for x in raw] if pair else [check_text(raw)]
        ahead, end = self.around
        if before:
            start, between, end = self.parting
            ahead = torch.cat([start, self.ids(before[0]), between])
        body = self.ids(text)
        extra = len(ahead) + len(end)
        if not extra and not len(body):
            raise ValueError("the tokenizer finds no token in the text")
        if self.max_length is not None and extra >= self.max_length:
            raise ValueError(f"the first text of the pair leaves none of {self.max_length} tokens for the second")
        how = (
            self.max_length,
            self.overflow,
            self.window_overlap,
            "bytes" if self.tokenizer is None else "tokens",
            extra,
        )
        read = limit(body, *how)
        windows = [torch.cat([ahead, window, end]) for window in read.windows]
        self.check_markers(windows)
        if not self.return_offsets:
            return EncodedInput(windows, read.cut)
        places = self.offsets(text)
        both = torch.cat([places, word_begins(text, places).unsqueeze(1)], dim=1)  # (T, 3)
        parts = limit(both, *how).windows
        around = len(ahead), len(end)
        found = [F.pad(part[:, :2], (0, 0, *around)) for part in parts]
        words = [F.pad(part, around, value=-1) for part in in_one_window([part[:, 2] for part in parts])]
        characters = torch.tensor([ord(letter) for letter in text], dtype=torch.int32)
        each = zip(found, words, strict=True)
        return EncodedInput(windows, read.cut, [{"places": p, "words": w, "characters": characters} for p, w in each])

    def ids(self, text: str) -> torch.Tensor:
        """Return the token ids of a text without special tokens, (T,)."""
        if self.tokenizer is None:
            return torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8).long() + 1
        return self.tokenize(text)

    def offsets(self, text: str) -> torch.Tensor:
        """Return the first character of each token and the character after its last, (T, 2) int32."""
        if self.tokenizer is None:
            return byte_places(text)
        told = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, **self.how)
        return torch.tensor(told["offset_mapping"], dtype=torch.int32).view(-1, 2)

    def check_markers(self, windows: Sequence[torch.Tensor]) -> None:
        """Raise an error if a window does not contain all marker tokens.

        Args:
            windows: Token ids of each window of a text.

        Raises:
            ValueError: If a marker token is missing.
        """
        for marker, known in self.markers.items():
            here = [bool((window == known).any()) for window in windows]
            if not any(here) and (len(here) > 1 or self.max_length is None or len(windows[0]) < self.max_length):
                raise ValueError(f"the text has no {marker}; every text needs {listing(list(self.markers))}")
            if not all(here):
                raise ValueError(
                    f"{marker} is not among the first {self.max_length} tokens of the text; raise max_length, at most "
                    "to the maximum length of the encoder, or shorten the text"
                )

    def vocabulary(self) -> TokenVocabulary:
        """Return the vocabulary for objectives that mask tokens.

        For bytes, the id of padding is used as mask token, and words begin at blanks.
        """
        around = torch.cat([*self.around, *self.parting, torch.tensor([0, *self.markers.values()])])
        if self.tokenizer is None:
            begins = torch.zeros(257, dtype=torch.bool)
            begins[[ord(blank) + 1 for blank in " \n\t"]] = True
            return TokenVocabulary(0, around.unique(), begins)
        special = torch.tensor(self.tokenizer.all_special_ids, dtype=torch.long)
        known = self.tokenizer.convert_ids_to_tokens(range(len(self.tokenizer)))
        return TokenVocabulary(self.tokenizer.mask_token_id, torch.cat([around, special]).unique(), word_starts(known))

    def finish(self, x: torch.Tensor) -> torch.Tensor:
        return x

    def lengths(self, raw: Sequence[Any]) -> list[float]:
        pairs = [x if isinstance(x, list | tuple) and len(x) == 2 else None for x in raw]
        counts = self.count([x if pair is None else pair[1] for x, pair in zip(raw, pairs)])
        ahead = self.count([None if pair is None else pair[0] for pair in pairs])
        alone, parting = sum(map(len, self.around)), sum(map(len, self.parting))
        found = []
        for count, first, pair in zip(counts, ahead, pairs):
            extra = alone if pair is None else parting + first
            if pair is not None and self.max_length is not None and extra >= self.max_length:
                found.append(float(self.max_length))  # __call__ raises an error for it
                continue
            whole = count + extra if count else 0
            found.append(float(room(whole, self.max_length, self.overflow, self.window_overlap, self.multiple, extra)))
        return found

    def count(self, texts: Sequence[Any]) -> list[int]:
        """Return the number of tokens of each text without special tokens; 0 for a value that is not a string."""
        known = [x.encode(errors="replace") if isinstance(x, str) else b"" for x in texts]
        if self.tokenizer is None:
            return [len(x) for x in known]
        ids = self.tokenizer([x.decode() for x in known], add_special_tokens=False, **self.how)["input_ids"]
        return [len(x) for x in ids]

    def tokenize(self, *texts: str, add_special_tokens: bool = False) -> torch.Tensor:
        """Return the token ids of a text or of a pair of texts, (T,)."""
        told = self.tokenizer(*texts, add_special_tokens=add_special_tokens, **self.how)["input_ids"]
        ids = torch.tensor(told, dtype=torch.long)
        if not self.markers:
            return ids
        # The ids differ from those of the tokenizer if the embedding table of the model has spare rows.
        old = self.tokenizer.convert_tokens_to_ids(list(self.markers))
        swaps = [(ids == one, new) for one, new in zip(old, self.markers.values(), strict=True)]
        for where, new in swaps:
            ids[where] = new
        return ids


def in_one_window(words: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Keep each word only in the window in which it begins farthest from a boundary at which the text was split.

    The concatenated windows then contain every word once, in the order of the text.

    Args:
        words: For each window the index of the word that each token begins, or -1, (T,).

    Returns:
        The same tensors, with -1 for the words that are kept in another window.
    """
    if len(words) == 1:
        return list(words)
    best: dict[int, tuple[float, int]] = {}  # word -> negative distance to the boundary, index of the window
    numbers = [own.tolist() for own in words]
    for window, own in enumerate(numbers):
        for place, word in enumerate(own):
            if word >= 0:
                before = place if window else float("inf")
                after = len(own) - 1 - place if window < len(words) - 1 else float("inf")
                best[word] = min(best.get(word, (0.0, window)), (-min(before, after), window))
    told = [torch.tensor([best.get(word, (0, -1))[1] == k for word in own]) for k, own in enumerate(numbers)]
    return [own.where(here, -1) for own, here in zip(words, told, strict=True)]


def word_starts(tokens: Sequence[str]) -> torch.Tensor:
    """Return whether each token of a vocabulary begins a word.

    If the vocabulary marks continuations with "##", these are the tokens without it; else those that begin with a
    blank.

    Args:
        tokens: Tokens in the order of their ids.
    """
    if any(token.startswith("##") for token in tokens):
        return torch.tensor([not token.startswith("##") for token in tokens])
    return torch.tensor([token.startswith(("\u2581", "\u0120")) for token in tokens])


def check_text(raw: Any) -> str:
    """Return a text after checking it.

    Raises:
        ValueError: If it is not a string, is empty, or contains bytes that are not UTF-8 (decoded as lone surrogates).
    """
    if not isinstance(raw, str):
        raise ValueError(f"got {type(raw).__name__}, wanted a text")
    if not raw:
        raise ValueError("the text is empty")
    try:
        raw.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"the text is not valid UTF-8 at character {error.start}; save the file as UTF-8") from None
    return raw


def cut_out(whole: torch.Tensor, part: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the parts of a sequence before and after the first occurrence of a subsequence."""
    begin = next(i for i in range(len(whole)) if torch.equal(whole[i : i + len(part)], part))
    return whole[:begin], whole[begin + len(part) :]


def word_begins(text: str, places: torch.Tensor) -> torch.Tensor:
    """Return for each token the index of the word that it begins, else -1, (T,) int32.

    Args:
        text: The text.
        places: First character of each token and the character after its last, (T, 2).
    """
    starts = torch.tensor([found.start() for found in re.finditer(r"\S+", text)], dtype=torch.int32)
    # A token may include the blank before it, so its last character decides which word it belongs to.
    word = torch.searchsorted(starts, (places[:, 1] - 1).contiguous(), right=True) - 1
    first = torch.cat([word.new_ones(1), word.diff()]) > 0
    return torch.where(first & (word >= 0), word, -1).int()


def byte_places(text: str) -> torch.Tensor:
    """Return for each UTF-8 byte of a text the index of its character and this index plus 1, (T, 2) int32."""
    sizes = torch.tensor([len(letter.encode()) for letter in text])
    first = torch.arange(len(text), dtype=torch.int32).repeat_interleave(sizes)
    return torch.stack([first, first + 1], dim=1)
