"""The part of a text that answers a question."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mm.predictions.base import Decoding, Prediction
from mm.predictions.token_categorical import pad_to_tokens
from mm.types import IGNORE
from mm.windows import side_by_side

# Marks of the first and the last token of an answer in targets of spans: added where they are one token, 0 elsewhere.
SPAN_START, SPAN_END = 1, 2

IMPOSSIBLE_LOGIT = -1e9  # of a token that is padding
NUM_CANDIDATES = 20  # most probable begins and ends that are combined


class SpanFields(NamedTuple):
    """The tensors of a Span: logits."""

    begin: Tensor  # (B, T) that the answer begins at a token
    last: Tensor  # (B, T) and ends with it
    nothing: Tensor  # (B, 2) the same of no token: there is no answer


class Span(Prediction, SpanFields):
    """Logits of the first and of the last token of an answer, and of there being none.

    A target is (B, up to T) int64 with the flags SPAN_START and SPAN_END. `meta` has the keys "places" and "characters"
    of the input.
    """

    __slots__ = ()
    calibration = "temperature"
    compares_decoded = True

    def merge(self, group: Tensor, count: int) -> "Span":
        """Put the windows' tokens side by side; "no answer" is that of the window with the least sum of its logits.

        As for SQuAD 2 in transformers: one window that finds an answer is enough. A window without a token takes no
        part, unless no window of the row has one.
        """
        length = self.begin.shape[1]
        begin, last = (side_by_side(x, group, count, length, IMPOSSIBLE_LOGIT) for x in (self.begin, self.last))
        empty = (self.begin <= IMPOSSIBLE_LOGIT / 2).all(1)
        total = self.nothing.sum(1).masked_fill(empty, torch.inf)
        least = total.new_full((count,), torch.inf).scatter_reduce(0, group, total, "amin")
        order = torch.arange(len(group), device=group.device).masked_fill(total != least[group], len(group))
        chosen = torch.full((count,), len(group), device=group.device).scatter_reduce(0, group, order, "amin")
        return Span(begin, last, self.nothing[chosen.clamp(max=len(group) - 1)])  # it is beyond where all is NaN

    def decode(self, decoding: Decoding, meta: Mapping[str, Tensor]) -> list[dict[str, Any]]:
        """Return {"prediction": text, "" for none, "start", "end": its characters, "probability", "n_best"} per row.

        "n_best" lists the most probable answers, {"text", "start", "end", "probability"} each. Probabilities are among
        the answers that NUM_CANDIDATES begins and ends make up, and none.
        """
        rows = []
        input = decoding.tokens_of()
        parts = (*self, meta[f"{input}/places"], meta[f"{input}/characters"])
        for begin, last, nothing, places, characters in zip(*parts, strict=True):
            text = "".join(map(chr, characters.tolist()))
            scores = candidate_spans(begin, last, places, decoding.max_answer_length)
            chances = torch.tensor([float(nothing.sum()), *scores.values()]).softmax(0).tolist()
            best = [
                {"text": text[a:b], "start": a, "end": b, "probability": p}
                for (a, b), p in sorted(zip(scores, chances[1:], strict=True), key=lambda one: -one[1])
            ][: decoding.n_best]
            chosen = {"text": "", "start": None, "end": None, "probability": chances[0]}
            if best and best[0]["probability"] >= chances[0]:
                chosen = best[0]
            rows.append({"prediction": chosen["text"]} | {k: chosen[k] for k in ("start", "end", "probability")})
            rows[-1]["n_best"] = best
        return rows

    def compare(
        self, rows: Sequence[dict[str, Any]], truth: Sequence[Any], decoding: Decoding
    ) -> tuple[list[str], list[list[str]]]:
        """Return the answers, and of each row all that would be right: the empty text where there is none."""
        return [row["prediction"] for row in rows], [answers or [""] for answers in truth]

    def temper(self, temperature: float) -> "Span":
        """Divide the logits; what is impossible stays so."""
        return Span(*(torch.where(x > IMPOSSIBLE_LOGIT / 2, x / temperature, IMPOSSIBLE_LOGIT) for x in self))

    def events(self, target: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits (N, 2, 1 + T) of no answer and of each token, that it begins and ends there; places (N, 2).

        Of several right answers, the one that is predicted to be most probable counts.
        """
        target = pad_to_tokens(target, self.begin.unsqueeze(-1))
        present = (self.begin > IMPOSSIBLE_LOGIT / 2).any(1)  # an absent text teaches nothing
        labelled = (target != IGNORE).any(1) & present
        flags = target[labelled].clamp(min=0)
        tokens = torch.stack([self.begin, self.last], dim=1)[labelled]  # (N, 2, T)
        here = torch.stack([flags & SPAN_START, flags & SPAN_END], dim=1) > 0
        right = torch.cat([~here.any(-1, keepdim=True), here], dim=-1)
        logits = torch.cat([self.nothing[labelled].unsqueeze(-1), tokens], dim=-1)
        return logits, logits.masked_fill(~right, -torch.inf).argmax(-1)


def candidate_spans(begin: Tensor, last: Tensor, places: Tensor, max_length: int) -> dict[tuple[int, int], float]:
    """Return the scores of the best answers; of one that several windows have, the highest.

    Args:
        begin: (T,) logits.
        last: (T,) logits.
        places: (T', 2) first character of each token, and one after its last.
        max_length: Largest number of tokens of an answer.

    Returns:
        (first character, one after the last) to the sum of both logits.
    """
    count = len(places)
    real = (places[:, 1] > places[:, 0]) & (places[:, 0] >= 0)
    begin, last = (x[:count].masked_fill(~real, IMPOSSIBLE_LOGIT) for x in (begin, last))
    first, final = (x.topk(min(NUM_CANDIDATES, count)).indices.tolist() for x in (begin, last))
    scores: dict[tuple[int, int], float] = {}
    for i in first:
        for j in final:
            score = float(begin[i] + last[j])
            span = int(places[i, 0]), int(places[j, 1])
            # A token of a later window may lie before one of an earlier.
            if 0 <= j - i < max_length and span[0] < span[1] and score > IMPOSSIBLE_LOGIT:
                scores[span] = max(score, scores.get(span, score))
    return scores
