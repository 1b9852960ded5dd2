"""Parts of a text that answer a question about it."""

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

NONE = -2  # in place of all answers: the text has none
ANYWHERE = -3  # in place of its first character: where it first stands
END = -1  # of an answer


class SpanTarget(Configurable):
    """A cell is an answer, word for word as the text has it, or a list of such; an empty list: the text has none.

    An answer is a text, or {"text": ..., "answer_start": its first character} (SQuAD, Rajpurkar 2016), both of which
    may be lists; without a start it is where it first stands by itself, not as a part of a longer word, else where it
    first stands, of what is read. input: whose text.
    """

    kind = "answers"
    needs = ("text", "return_offsets")
    texts = ("the cat sees", "old birds", "a dog and cats", "it bites", "the old dog")
    examples = ("cat", "birds", [], [{"text": "bites", "answer_start": 3}, "it"], ["old dog"])

    def __init__(self, input: str):
        self.input = input

    def fit(self, cells: Sequence[Any], train: np.ndarray, known: TargetData | None) -> EncodedTarget:
        """-> of every row its answers, each its first character, its code points and END; or NONE, or IGNORE"""
        values, faults = [], {}
        for row, cell in enumerate(cells):
            try:
                values.append(torch.tensor(coded(cell)))
            except ValueError as error:
                values.append(torch.tensor([IGNORE]))
                faults[row] = str(error)
        return EncodedTarget(values, TargetData(kind=self.kind, facts={"input": self.input}), faults)

    def align(self, target: Tensor, read: EncodedInput) -> list[Tensor]:
        """-> of every window (T,): where an answer begins, where it ends, and where neither

        Answers are marked only in windows that hold all of them.

        Raises:
            TargetTruncatedError: If the answer lies in a part of the text that was truncated.
            ValueError: If the answer is not in the text.
        """
        if (target == IGNORE).all():
            return [torch.full((len(meta["words"]),), IGNORE) for meta in read.meta]
        found = [torch.zeros(len(meta["words"]), dtype=torch.long) for meta in read.meta]
        text = "".join(map(chr, read.meta[0]["characters"].tolist()))
        covered = torch.zeros(len(text) + 1, dtype=torch.bool)  # characters that are of a token: blanks need not be
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
    """Errors: ValueError for what is no answer."""
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
    """Where an answer stands: each one's first character. Those within longer words come last."""
    found = [text.find(answer)]
    while found[-1] >= 0:
        found.append(text.find(answer, found[-1] + 1))
    return sorted(found[:-1], key=lambda first: within(text, first) or within(text, first + len(answer)))


def within(text: str, place: int) -> bool:
    """Whether a word goes on across a place."""
    return 0 < place < len(text) and text[place - 1].isalnum() and text[place].isalnum()


def edges(covered: Tensor, first: int, answer: str, cut: bool) -> tuple[int, int] | None:
    """Of an answer that stands at `first`, its outermost characters that are of tokens; None where one was cut off.

    covered: (characters,) bool, those that are of a token; cut: whether a part of the text was left out -> begin, end
    """
    own = covered[first : first + len(answer)].nonzero().flatten().tolist()
    if not own:
        return None
    begin, end = first + own[0], first + own[-1] + 1
    lead, tail = len(answer) - len(answer.lstrip()), len(answer.rstrip())
    return None if cut and (begin > first + lead or end < first + tail) else (begin, end)


def decoded(target: Tensor) -> list[tuple[int, str]]:
    """Its answers: first character, text."""
    found, rest = [], target.tolist()
    while rest and rest[0] != NONE:
        end = rest.index(END)
        found.append((rest[0], "".join(map(chr, rest[1:end]))))
        rest = rest[end + 1 :]
    return found


def mark(flags: Tensor, places: Tensor, begin: int, end: int) -> bool:
    """Mark the tokens with these characters (T,), where the window has them all. -> whether it has"""
    here = ((places[:, 0] < end) & (places[:, 1] > begin)).nonzero().flatten()
    if not len(here) or places[here[0], 0] > begin or places[here[-1], 1] < end:
        return False
    flags[here[0]] |= SPAN_START
    flags[here[-1]] |= SPAN_END
    return True
