"""The part of a text that answers a question."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from mm.configurable import Configurable
from mm.heads.token_classification import fit
from mm.types import BEGIN, IGNORE, LAST, Features
from mm.windows import side_by_side

FLOOR = -1e9  # of what can't be
CANDIDATES = 20  # begins and ends that are put together


class Spans(NamedTuple):
    """Logits."""

    begin: Tensor  # (B, T) that an answer begins at a token
    last: Tensor  # (B, T) and ends with it
    nothing: Tensor  # (B, 2) the same of no token: there is no answer


class SpanHead(Configurable, nn.Module):
    """Where an answer begins and ends, by two logits for each of the anchor's tokens, as BERT does (Devlin 2019).

    No answer competes as one more place, as for SQuAD 2 (Rajpurkar 2018); of several answers the sum of their
    probabilities is learnt (Clark 2018). input: the anchor's name; longest: tokens of an answer; best: how many are
    told. Errors: ValueError for numbers out of range.
    """

    per_window = True  # its loss counts windows, each of which has or lacks an answer

    def __init__(
        self, *, input: str, embed_dim: int, longest: int = 64, best: int = 3, dropout: float = 0.0, weight: float = 1.0
    ):
        super().__init__()
        for name, value in (("longest", longest), ("best", best)):
            if value < 1:
                raise ValueError(f"{name}: got {value}, wanted at least 1")
        self.input = input
        self.longest = longest
        self.best = best
        self.weight = weight
        self.drop = nn.Dropout(dropout)
        self.linear = nn.Linear(embed_dim, 2)
        self.none = nn.Linear(embed_dim, 2)

    def forward(self, fused: Features, target: Tensor | None = None) -> Spans:
        """tokens (B, T, D), pooled (B, D)"""
        logits = self.linear(self.drop(fused.tokens)).float().masked_fill(~fused.mask.unsqueeze(-1), FLOOR)
        return Spans(logits[..., 0], logits[..., 1], self.none(self.drop(fused.pooled)).float())

    def loss(self, prediction: Spans, target: Tensor, fused: Features) -> tuple[Tensor, Tensor]:
        """target (B, up to T) -> sum over labelled windows of the mean of both cross-entropies, their count"""
        target = fit(target, prediction.begin.unsqueeze(-1))
        labelled = (target != IGNORE).any(1) & fused.mask.any(1)  # an absent text tells nothing
        flags = target.clamp(min=0)
        total = prediction.begin.new_zeros(len(target))
        for place, (logits, flag) in enumerate(((prediction.begin, BEGIN), (prediction.last, LAST))):
            here = (flags & flag) > 0  # (B, T)
            right = torch.cat([~here.any(1, keepdim=True), here], dim=1)
            every = torch.cat([prediction.nothing[:, place, None], logits], dim=1).log_softmax(1)
            total = total - every.masked_fill(~right, FLOOR).logsumexp(1) / 2
        return (total * labelled).sum(), labelled.sum()

    def choices(self, prediction: Spans, target: Tensor) -> tuple[Tensor, Tensor]:
        """-> logits (N, 2, 1 + T) of no answer and of each token, that it begins there, and ends; places (N, 2)

        Of several answers that one counts as right which the head finds most likely.
        """
        target = fit(target, prediction.begin.unsqueeze(-1))
        labelled = (target != IGNORE).any(1) & (prediction.begin > FLOOR / 2).any(1)  # an absent text tells nothing
        flags = target[labelled].clamp(min=0)
        tokens = torch.stack([prediction.begin, prediction.last], dim=1)[labelled]  # (N, 2, T)
        here = torch.stack([flags & BEGIN, flags & LAST], dim=1) > 0
        right = torch.cat([~here.any(-1, keepdim=True), here], dim=-1)
        logits = torch.cat([prediction.nothing[labelled].unsqueeze(-1), tokens], dim=-1)
        return logits, logits.masked_fill(~right, -torch.inf).argmax(-1)

    def tempered(self, prediction: Spans, temperature: float) -> Spans:
        """What can't be stays so."""
        return Spans(*(torch.where(x > FLOOR / 2, x / temperature, FLOOR) for x in prediction))

    def decode(self, prediction: Spans, fused: Features, meta: dict[str, Tensor]) -> list[dict[str, Any]]:
        """-> per row {"prediction": text, "" for none, "start", "end": its characters, "probability", "best"}

        best: the most probable ones, {"text", "start", "end", "probability"} each; probabilities are among the answers
        that CANDIDATES begins and ends make up, and none.
        """
        rows = []
        parts = (*prediction, meta[f"{self.input}/places"], meta[f"{self.input}/characters"])
        for begin, last, nothing, places, characters in zip(*parts, strict=True):
            text = "".join(map(chr, characters.tolist()))
            found = self.candidates(begin, last, places)
            score = torch.tensor([float(nothing.sum()), *found.values()])
            chances = score.softmax(0).tolist()
            told = [
                {"text": text[a:b], "start": a, "end": b, "probability": p}
                for (a, b), p in sorted(zip(found, chances[1:], strict=True), key=lambda one: -one[1])
            ][: self.best]
            chosen = {"text": "", "start": None, "end": None, "probability": chances[0]}
            if told and told[0]["probability"] >= chances[0]:
                chosen = told[0]
            rows.append({"prediction": chosen["text"]} | {k: chosen[k] for k in ("start", "end", "probability")})
            rows[-1]["best"] = told
        return rows

    def candidates(self, begin: Tensor, last: Tensor, places: Tensor) -> dict[tuple[int, int], float]:
        """First character, one after the last -> score; of what several windows have, the best. (T,), (T,), (T', 2)"""
        count = len(places)
        real = (places[:, 1] > places[:, 0]) & (places[:, 0] >= 0)
        begin, last = (x[:count].masked_fill(~real, FLOOR) for x in (begin, last))
        first, final = (x.topk(min(CANDIDATES, count)).indices.tolist() for x in (begin, last))
        found: dict[tuple[int, int], float] = {}
        for i in first:
            for j in final:
                score = float(begin[i] + last[j])
                span = int(places[i, 0]), int(places[j, 1])
                # A token of a later window may lie before one of an earlier.
                if 0 <= j - i < self.longest and span[0] < span[1] and score > FLOOR:
                    found[span] = max(score, found.get(span, score))
        return found

    def compare(self, said: Sequence[dict[str, Any]], truth: Sequence[Any]) -> tuple[list[str], list[list[str]]]:
        """-> what is told, and what would be right: of no answer the empty text"""
        return [row["prediction"] for row in said], [answers or [""] for answers in truth]

    def merge(self, prediction: Spans, group: Tensor, count: int) -> Spans:
        """Put the windows' tokens side by side; "no answer" is that of the window with the least sum of its logits.

        As for SQuAD 2 in transformers: one window that finds an answer is enough. A window without a token takes no
        part, unless no window of the row has one.
        """
        length = prediction.begin.shape[1]
        begin, last = (side_by_side(x, group, count, length, FLOOR) for x in prediction[:2])
        empty = (prediction.begin <= FLOOR / 2).all(1)
        total = prediction.nothing.sum(1).masked_fill(empty, torch.inf)
        least = total.new_full((count,), torch.inf).scatter_reduce(0, group, total, "amin")
        order = torch.arange(len(group), device=group.device).masked_fill(total != least[group], len(group))
        chosen = torch.full((count,), len(group), device=group.device).scatter_reduce(0, group, order, "amin")
        return Spans(begin, last, prediction.nothing[chosen.clamp(max=len(group) - 1)])  # it is beyond where all is NaN
