"""What is said or written, without knowing where: connectionist temporal classification."""

from collections.abc import Callable, Sequence
from math import exp, log1p
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mm.configurable import Configurable
from mm.heads._judging import judge_texts, revise_text, text_row
from mm.types import IGNORE, Features
from mm.windows import first_windows


def greedy(scores: Tensor) -> list[int]:
    """The best symbol of each token; of a run one, blanks none (Graves 2006). (T, C + 1), the last the blank"""
    best = scores.argmax(-1)
    return [i for i in best.unique_consecutive().tolist() if i != scores.shape[-1] - 1]


def beam_search(scores: Tensor, beam: int) -> list[int]:
    """The most probable sequence, all of its alignments together, of those that `beam` prefixes reach (Hannun 2014).

    (T, C + 1) log-probabilities, the last of the blank
    """
    blank = scores.shape[-1] - 1
    nothing = -torch.inf
    # prefix -> log-probability that it ends in a blank, and that it does not
    prefixes: dict[tuple[int, ...], tuple[float, float]] = {(): (0.0, nothing)}
    for row in scores.tolist():
        found: dict[tuple[int, ...], tuple[float, float]] = {}
        for prefix, (ended, open_) in prefixes.items():
            whole = logaddexp(ended, open_)
            add(found, prefix, whole + row[blank], nothing)
            if prefix:
                add(found, prefix, nothing, open_ + row[prefix[-1]])
            for symbol in range(blank):
                before = ended if prefix and symbol == prefix[-1] else whole
                add(found, (*prefix, symbol), nothing, before + row[symbol])
        best = sorted(found, key=lambda prefix: -logaddexp(*found[prefix]))[:beam]
        prefixes = {prefix: found[prefix] for prefix in best}
    return list(next(iter(prefixes)))


def logaddexp(a: float, b: float) -> float:
    """log(exp a + exp b)"""
    high, low = max(a, b), min(a, b)
    return high if low == -torch.inf else high + log1p(exp(low - high))


def add(found: dict[tuple[int, ...], tuple[float, float]], prefix: tuple[int, ...], ended: float, open_: float) -> None:
    """More ways to a prefix."""
    one, other = found.get(prefix, (-torch.inf, -torch.inf))
    found[prefix] = logaddexp(one, ended), logaddexp(other, open_)


def likelihood(scores: Tensor, symbols: Sequence[int]) -> float:
    """Logarithm, of a sequence in all of its alignments. (T, C + 1) log-probabilities, the last of the blank"""
    one = torch.tensor([list(symbols)], dtype=torch.long)
    lengths = torch.tensor([len(scores)]), torch.tensor([len(symbols)])
    return -float(F.ctc_loss(scores.unsqueeze(1), one, *lengths, scores.shape[-1] - 1, "none"))


class CTCHead(Configurable, nn.Module):
    """A symbol, or none, of each of the anchor's tokens; their order is learnt, their places are not (Graves 2006).

    classes: letters or words; separator: what stands between them; input: the anchor's name; beam: prefixes that
    decoding keeps, 1 takes the best symbol of each token. Errors: ValueError for a beam below 1.
    """

    def __init__(
        self,
        *,
        classes: Sequence[str],
        input: str,
        separator: str,
        embed_dim: int,
        beam: int = 1,
        dropout: float = 0.0,
        weight: float = 1.0,
    ):
        super().__init__()
        if beam < 1:
            raise ValueError(f"beam: got {beam}, wanted at least 1")
        self.classes = list(classes)
        self.input = input
        self.separator = separator
        self.beam = beam
        self.weight = weight
        self.drop = nn.Dropout(dropout)
        self.linear = nn.Linear(embed_dim, len(self.classes) + 1)

    def forward(self, fused: Features, target: Tensor | None = None) -> Tensor:
        """tokens (B, T, D) -> logits (B, T, C + 1), the last of no symbol; no symbol is certain where no token is"""
        logits = self.linear(self.drop(fused.tokens)).float()
        blank = F.one_hot(torch.tensor(len(self.classes), device=logits.device), logits.shape[-1])
        return torch.where(fused.mask.unsqueeze(-1), logits, (blank - 1) * 1e4)

    def loss(self, prediction: Tensor, target: Tensor, fused: Features) -> tuple[Tensor, Tensor]:
        """(B, T, C + 1), (B, U) -> sum over labelled rows that have tokens, their symbols

        Errors: ValueError where a row has more symbols than tokens.
        """
        length = (target != IGNORE).sum(1)
        tokens = fused.mask.sum(1)
        rows = ((length > 0) & (tokens > 0)).nonzero().flatten()
        if not len(rows):
            return prediction.sum() * 0, length.new_zeros(())
        target, length, tokens = target[rows].clamp(min=0), length[rows], tokens[rows]
        place = torch.arange(1, target.shape[1], device=target.device)
        # A symbol that comes twice in a row needs a blank between.
        twice = ((target[:, 1:] == target[:, :-1]) & (place < length.unsqueeze(1))).sum(1)
        short = tokens < length + twice
        if short.any():
            first = self.separator.join(self.classes[i] for i in target[short][0][: length[short][0]].tolist())
            raise ValueError(
                f"{int(short.sum())} of {len(rows)} rows have fewer tokens of '{self.input}' than symbols to tell: "
                f"{int(tokens[short][0])} for the {int(length[short][0])} of '{first}'; choose an encoder of more "
                "tokens, such as one of smaller strides, or units=words, or leave such rows out"
            )
        scores = prediction[rows].log_softmax(-1).transpose(0, 1)  # (T, rows, C + 1)
        # All tokens of a row count: those that are not real are blanks.
        whole = torch.full_like(tokens, len(scores))
        return F.ctc_loss(scores, target, whole, length, len(self.classes), "none").sum(), length.sum()

    def decode(self, prediction: Tensor, fused: Features, meta: dict[str, Tensor]) -> list[dict[str, Any]]:
        """-> per row {"prediction": text, "probability" per symbol, "log_probability" of the text in all alignments}"""
        found = []
        for scores in prediction.float().log_softmax(-1).cpu():
            symbols = greedy(scores) if self.beam == 1 else beam_search(scores, self.beam)
            text = self.separator.join(self.classes[i] for i in symbols)
            found.append(text_row(text, likelihood(scores, symbols), len(symbols)))
        return found

    def compare(self, said: Sequence[dict[str, Any]], truth: Sequence[Any]) -> tuple[list[str], list[str]]:
        """-> what is told, and what was said"""
        return [row["prediction"] for row in said], list(truth)

    def judge(self, said: Sequence[dict[str, Any]], truth: Sequence[Any]) -> tuple[list[float], list[bool]]:
        return judge_texts(said, truth)

    def revised(self, row: dict[str, Any], revise: Callable[[float], float]) -> dict[str, Any]:
        return revise_text(row, revise)

    def merge(self, prediction: Tensor, group: Tensor, count: int) -> Tensor:
        """Of rows that another input has windows of, the first. (B, T, C + 1), (B,) -> (count, T, C + 1)"""
        return prediction[first_windows(group, count)]
