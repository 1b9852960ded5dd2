"""Target codec for extractive question answering: answers that occur word for word in a text."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mm.cells import text_of
from mm.configurable import Configurable
from mm.predictions.span import SPAN_END, SPAN_START
from mm.targets.base import TargetTruncatedError
from mm.types import IGNORE, EncodedInput, EncodedTarget, TargetData

NONE = -2  # replaces the answers of a row: the text contains no answer
ANYWHERE = -3  # replaces the index of the first character of an answer: use its first occurrence
END = -1  # ends each answer


class SpanTarget(Configurable):
    """Encode an answer that occurs word for word in a text, for extractive question answering.

    A cell is an answer or a list of alternative answers; an empty list means that the text contains no answer. An
    answer is a string, or {"text": ..., "answer_start": ...} as in SQuAD (Rajpurkar et al. 2016), where `answer_start`
    is the index of its first character in the text. Both values may be lists. Without `answer_start`, the answer is
    located at its first occurrence as whole words, or else at its first occurrence inside of a longer word. Occurrences
    in a truncated part of the text are skipped.

    Args:
        input: Name of the text input that contains the answers.
    """

    kind = "answers"
    needs = ("text", "return_offsets")
    texts = ("the cat sees", "old birds", "a dog and cats", "it bites", "the old dog")
    examples = ("cat", "birds", [], [{"text": "bites", "answer_start": 3}, "it"], ["old dog"])

    def __init__(self, input: str):
        self.input = input

    def fit(self, cells: Sequence[Any], train: np.ndarray, known: TargetData | None) -> EncodedTarget:
        """Encode the cells of all rows; the values are one int64 tensor per row with all of its answers.

        Each answer consists of the index of its first character (or `ANYWHERE`), its Unicode code points, and `END`.
        The tensor is a single `NONE` if the text contains no answer, and a single IGNORE if the row is unlabelled.

        Args:
            cells: Cells of all rows, (N,).
            train: Not used.
            known: Not used.
        """
        values, faults = [], {}
        for row, cell in enumerate(cells):
            try:
                values.append(torch.tensor(coded(cell)))
            except ValueError as error:
                values.append(torch.tensor([IGNORE]))
                faults[row] = str(error)
        return EncodedTarget(values, TargetData(kind=self.kind, facts={"input": self.input}), faults)

    def align(self, target: Tensor, read: EncodedInput) -> list[Tensor]:
        """Return for each window a tensor (T,) that marks the first and the last token of each answer.

        The first token has the bit `SPAN_START` and the last the bit `SPAN_END`; all other tokens are 0. An answer is
        marked only in the windows that contain all of it.

        Args:
            target: Answers of the row, as encoded by `fit`.
            read: The encoded text, whose meta has the offsets of its tokens.

        Raises:
            TargetTruncatedError: If no window contains a complete answer, because the text was truncated or split.
            ValueError: If the answer does not occur in the text.
        """
        if (target == IGNORE).all():
            return [torch.full((len(meta["words"]),), IGNORE) for meta in read.meta]
        found = [torch.zeros(len(meta["words"]), dtype=torch.long) for meta in read.meta]
        text = "".join(map(chr, read.meta[0]["characters"].tolist()))
        covered = torch.zeros(len(text) + 1, dtype=torch.bool)  # characters of tokens; blanks may have no token
        for meta in read.meta:
            for begin, end in meta["places"].tolist():
                covered[begin:end] = True
        for start, answer in decoded(target):
            begins = every(text, answer) if start == ANYWHERE else [start] if text.startswith(answer, start) else []
            if not begins:
                where = "" if start == ANYWHERE else f" at character {start}"
                raise ValueError(f"the text has no '{answer}'{where}; an answer is a part of it, word for word")
            for first in begins:
                ends = edges(covered, first, answer, read.cut)
                here = [mark(flags, meta["places"], *ends) for flags, meta in zip(found, read.meta)] if ends else []
                if any(here):
                    break
            else:
                raise TargetTruncatedError(
                    f"the answer '{answer}' is nowhere read as a whole; raise max_length or window_overlap, or set "
                    f"overflow=window, of datamodule.transforms.{self.input}"
                )
        return found

    def strata(self, cell: Any) -> None:
        return None

    def decode(self, target: Tensor, data: TargetData) -> list[str] | None:
        return None if (target == IGNORE).all() else [answer for _, answer in decoded(target)]


def coded(cell: Any) -> list[int]:
    """Return the answers of a cell as integers, as described in `SpanTarget.fit`.

    Raises:
        ValueError: If the cell is not an answer, or a list of answers.
    """
    if isinstance(cell, Mapping) and isinstance(cell.get("text"), list):  # {text: [...], answer_start: [...]}
        texts, starts = cell["text"], cell.get("answer_start")
        if starts is not None and (not isinstance(starts, list) or len(starts) != len(texts)):
            raise ValueError(f"got {cell!r:.80}, wanted as many answer_start as text")
        every = [{"text": text} for text in texts]
        cell = every if starts is None else [{**one, "answer_start": s} for one, s in zip(every, starts)]
    if isinstance(cell, list | tuple) and not cell:
        return [NONE]
    found: list[int] = []
    for one in cell if isinstance(cell, list | tuple) else [cell]:
        start: Any = ANYWHERE
        if isinstance(one, Mapping):
            start, one = one.get("answer_start", ANYWHERE), one.get("text")
        if one is not None and not isinstance(one, str):
            one = text_of(one)
        known = start == ANYWHERE or (type(start) is int and start >= 0)
        if not known or not one or not one.strip():
            if cell is None or cell == "":
                return [IGNORE]
            raise ValueError(f"got {cell!r:.80}, wanted an answer: a text, or {{text: ..., answer_start: 12}}")
        found += [start, *map(ord, one), END]
    return found


def every(text: str, answer: str) -> list[int]:
    """Return the index of the first character of each occurrence of an answer.

    Occurrences that begin or end inside of a longer word come last.
    """
    found = [text.find(answer)]
    while found[-1] >= 0:
        found.append(text.find(answer, found[-1] + 1))
    return sorted(found[:-1], key=lambda first: within(text, first) or within(text, first + len(answer)))


def within(text: str, place: int) -> bool:
    """Return whether a position lies inside of a word: the characters before and after it are letters or digits."""
    return 0 < place < len(text) and text[place - 1].isalnum() and text[place].isalnum()


def edges(covered: Tensor, first: int, answer: str, cut: bool) -> tuple[int, int] | None:
    """Return the first character of an answer and the character after its last, reduced to characters of tokens.

    Args:
        covered: Whether each character of the text belongs to a token, (characters,) bool.
        first: Index of the first character of the answer.
        answer: The answer.
        cut: Whether the text was truncated.

    Returns:
        The two indices, or None if no character of the answer belongs to a token, or if the answer was truncated.
    """
    own = covered[first : first + len(answer)].nonzero().flatten().tolist()
    if not own:
        return None
    begin, end = first + own[0], first + own[-1] + 1
    lead, tail = len(answer) - len(answer.lstrip()), len(answer.rstrip())
    return None if cut and (begin > first + lead or end < first + tail) else (begin, end)


def decoded(target: Tensor) -> list[tuple[int, str]]:
    """Return the index of the first character (or `ANYWHERE`) and the text of each answer of a row."""
    found, rest = [], target.tolist()
    while rest and rest[0] != NONE:
        end = rest.index(END)
        found.append((rest[0], "".join(map(chr, rest[1:end]))))
        rest = rest[end + 1 :]
    return found


def mark(flags: Tensor, places: Tensor, begin: int, end: int) -> bool:
    """Mark the first and the last token of an answer in a window, if the window contains the complete answer.

    Args:
        flags: Marks of the tokens, (T,) int64, changed in place.
        places: First character of each token and the character after its last, (T, 2).
        begin: First character of the answer.
        end: Character after the last of the answer.

    Returns:
        Whether the window contains the complete answer.
    """
    here = ((places[:, 0] < end) & (places[:, 1] > begin)).nonzero().flatten()
    if not len(here) or places[here[0], 0] > begin or places[here[-1], 1] < end:
        return False
    flags[here[0]] |= SPAN_START
    flags[here[-1]] |= SPAN_END
    return True
