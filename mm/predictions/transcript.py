"""Prediction of a sequence of symbols whose positions are unknown: CTC (Graves et al. 2006)."""

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
    """Tensors of `Transcript`."""

    logits: Tensor  # (B, T, C + 1), the last class is the blank (no symbol)


class Transcript(WholeText, TranscriptFields):
    """Logits (B, T, C + 1) of C symbols and the CTC blank, for each token.

    A target is (B, U) int64 with the indices of U symbols.
    """

    __slots__ = ()

    def merge(self, group: Tensor, count: int) -> "Transcript":
        """Take the prediction of the first window of each row.

        A row has several windows only because of another input, and the head is trained on the first window only.
        """
        return Transcript(self.logits[first_windows(group, count)])

    def decode(self, decoding: Decoding, meta: Mapping[str, Tensor]) -> list[dict[str, Any]]:
        """Return {"prediction": text, "probability", "log_probability"} per row.

        "probability" is the geometric mean per symbol. "log_probability" is that of the whole text, summed over all
        alignments.
        """
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
    """Return the symbols of the best alignment: repeated symbols are merged and blanks removed (Graves et al. 2006).

    Args:
        scores: Log-probabilities of the symbols, the last of them the blank, (T, C + 1).
    """
    best = scores.argmax(-1)
    return [i for i in best.unique_consecutive().tolist() if i != scores.shape[-1] - 1]


def beam_search(scores: Tensor, beam_width: int) -> list[int]:
    """Return the most probable sequence of symbols within the beam, summed over its alignments (Hannun et al. 2014).

    Args:
        scores: Log-probabilities of the symbols, the last of them the blank, (T, C + 1).
        beam_width: Number of prefixes to keep after each token.
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
    """Add the log-probabilities of further alignments of a prefix to `reached`.

    Args:
        reached: For each prefix the log-probability of its alignments that end in a blank, and of those that do not;
            changed in place.
        prefix: The prefix.
        ended: Log-probability of the further alignments that end in a blank.
        open_: Log-probability of the further alignments that do not.
    """
    one, other = reached.get(prefix, (-torch.inf, -torch.inf))
    reached[prefix] = logaddexp(one, ended), logaddexp(other, open_)


def log_likelihood(scores: Tensor, symbols: Sequence[int]) -> float:
    """Return the log-probability of a sequence of symbols, summed over all alignments.

    Args:
        scores: Log-probabilities of the symbols, the last of them the blank, (T, C + 1).
        symbols: Indices of the symbols.
    """
    one = torch.tensor([list(symbols)], dtype=torch.long)
    lengths = torch.tensor([len(scores)]), torch.tensor([len(symbols)])
    return -float(F.ctc_loss(scores.unsqueeze(1), one, *lengths, scores.shape[-1] - 1, "none"))
