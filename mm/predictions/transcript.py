"""Symbols in the order of the tokens, without knowing where: connectionist temporal classification (Graves 2006)."""

from collections.abc import Mapping, Sequence
from math import exp, log1p
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from mm.predictions.base import Decoding
from mm.predictions.text import WholeText, text_row
from mm.windows import first_windows


class TranscriptFields(NamedTuple):
    """The tensors of a Transcript."""

    logits: Tensor  # (B, T, C + 1), the last of no symbol, the blank


class Transcript(WholeText, TranscriptFields):
    """Logits (B, T, C + 1) of a symbol or of none for each token; a target is (B, U) int64."""

    __slots__ = ()

    def merge(self, group: Tensor, count: int) -> "Transcript":
        """Take the first window of each row: only another input has several, and the first window alone is learnt."""
        return Transcript(self.logits[first_windows(group, count)])

    def decode(self, decoding: Decoding, meta: Mapping[str, Tensor]) -> list[dict[str, Any]]:
        """Return {"prediction": text, "probability" per symbol, "log_probability" of the text in all alignments}."""
        classes = decoding.class_names(self.logits.shape[2] - 1)
        rows = []
        for scores in self.logits.float().log_softmax(-1).cpu():
            symbols = greedy(scores) if decoding.beam_width == 1 else beam_search(scores, decoding.beam_width)
            text = decoding.separator.join(classes[i] for i in symbols)
            rows.append(text_row(text, log_likelihood(scores, symbols), len(symbols)))
        return rows

    def compare(
        self, rows: Sequence[dict[str, Any]], truth: Sequence[Any], decoding: Decoding
    ) -> tuple[list[str], list[str]]:
        """Return the predicted and the true texts."""
        return [row["prediction"] for row in rows], list(truth)


def greedy(scores: Tensor) -> list[int]:
    """Return the best symbol of each token; of a run one, blanks none (Graves 2006). (T, C + 1), the last the blank"""
    best = scores.argmax(-1)
    return [i for i in best.unique_consecutive().tolist() if i != scores.shape[-1] - 1]


def beam_search(scores: Tensor, beam_width: int) -> list[int]:
    """Return the most probable sequence, all of its alignments together, of those that the beam reaches (Hannun 2014).

    Args:
        scores: (T, C + 1) log-probabilities, the last of the blank.
        beam_width: Number of prefixes that are kept.
    """
    blank = scores.shape[-1] - 1
    nothing = -torch.inf
    # prefix -> log-probability that it ends in a blank, and that it does not
    prefixes: dict[tuple[int, ...], tuple[float, float]] = {(): (0.0, nothing)}
    for row in scores.tolist():
        reached: dict[tuple[int, ...], tuple[float, float]] = {}
        for prefix, (ended, open_) in prefixes.items():
            total = logaddexp(ended, open_)
            add_alignments(reached, prefix, total + row[blank], nothing)
            if prefix:
                add_alignments(reached, prefix, nothing, open_ + row[prefix[-1]])
            for symbol in range(blank):
                before = ended if prefix and symbol == prefix[-1] else total
                add_alignments(reached, (*prefix, symbol), nothing, before + row[symbol])
        best = sorted(reached, key=lambda prefix: -logaddexp(*reached[prefix]))[:beam_width]
        prefixes = {prefix: reached[prefix] for prefix in best}
    return list(next(iter(prefixes)))


def logaddexp(a: float, b: float) -> float:
    """Return log(exp a + exp b)."""
    high, low = max(a, b), min(a, b)
    return high if low == -torch.inf else high + log1p(exp(low - high))


def add_alignments(
    reached: dict[tuple[int, ...], tuple[float, float]], prefix: tuple[int, ...], ended: float, open_: float
) -> None:
    """Add the log-probabilities of more alignments of a prefix."""
    one, other = reached.get(prefix, (-torch.inf, -torch.inf))
    reached[prefix] = logaddexp(one, ended), logaddexp(other, open_)


def log_likelihood(scores: Tensor, symbols: Sequence[int]) -> float:
    """Return the log-probability of a sequence in all of its alignments, of (T, C + 1) log-probabilities."""
    one = torch.tensor([list(symbols)], dtype=torch.long)
    lengths = torch.tensor([len(scores)]), torch.tensor([len(symbols)])
    return -float(F.ctc_loss(scores.unsqueeze(1), one, *lengths, scores.shape[-1] - 1, "none"))
