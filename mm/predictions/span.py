"""Prediction of the part of a text that answers a question."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mm.predictions.base import Decoding, Prediction
from mm.predictions.token_categorical import pad_to_tokens
from mm.types import IGNORE
from mm.windows import side_by_side

# Bits that mark the first and the last token of an answer in a target; a token may have both, and other tokens are 0.
SPAN_START, SPAN_END = 1, 2

IMPOSSIBLE_LOGIT = -1e9  # logit of padding
NUM_CANDIDATES = 20  # number of most probable first tokens, and of last tokens, that are combined


class SpanFields(NamedTuple):
    """Tensors of `Span`, all logits."""

    begin: Tensor  # (B, T) the token is the first of the answer
    last: Tensor  # (B, T) the token is the last of the answer
    nothing: Tensor  # (B, 2) no token is the first, no token is the last: there is no answer


class Span(Prediction, SpanFields):
    """Logits of the first token and of the last token of an answer, and of the absence of an answer.

    A target is (B, up to T) int64 with the bits SPAN_START and SPAN_END. `meta` has the keys "places" and "characters"
    of the input.
    """

    __slots__ = ()
    calibration = "temperature"
    compares_decoded = True

    def merge(self, group: Tensor, count: int) -> "Span":
        """Concatenate the tokens of the windows of each row, and take "no answer" from one window.

        This is the window with the smallest sum of the two "no answer" logits, as for SQuAD 2 in transformers: one
        window with an answer is enough. Windows without tokens are skipped, unless all windows of the row have none.
        """
        length = self.begin.shape[1]
        begin, last = (side_by_side(x, group, count, length, IMPOSSIBLE_LOGIT) for x in (self.begin, self.last))
        empty = (self.begin <= IMPOSSIBLE_LOGIT / 2).all(1)
        total = self.nothing.sum(1).masked_fill(empty, torch.inf)
        least = total.new_full((count,), torch.inf).scatter_reduce(0, group, total, "amin")
        order = torch.arange(len(group), device=group.device).masked_fill(total != least[group], len(group))
        chosen = torch.full((count,), len(group), device=group.device).scatter_reduce(0, group, order, "amin")
        return Span(begin, last, self.nothing[chosen.clamp(max=len(group) - 1)])  # out of range if all logits are NaN

    def decode(self, decoding: Decoding, meta: Mapping[str, Tensor]) -> list[dict[str, Any]]:
        """Return {"prediction": text, "start", "end", "probability", "n_best"} per row.

        "start" is the index of the first character of the answer and "end" that of the character after its last.
        Without an answer, the prediction is "" and both are None. "n_best" lists the most probable answers as {"text",
        "start", "end", "probability"}. Probabilities are normalised over "no answer" and the combinations of the
        NUM_CANDIDATES most probable first and last tokens.
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
        """Return the predicted answers, and for each row the list of its right answers.

        For a row without an answer the list is [""].
        """
        return [row["prediction"] for row in rows], [answers or [""] for answers in truth]

    def temper(self, temperature: float) -> "Span":
        """Divide the logits by the temperature; those of padding remain impossible."""
        return Span(*(torch.where(x > IMPOSSIBLE_LOGIT / 2, x / temperature, IMPOSSIBLE_LOGIT) for x in self))

    def events(self, target: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits (N, 2, 1 + T) and class indices (N, 2) for the first and the last token of the answer.

        Class 0 is "no answer" and class 1 + t is token t. If several answers are right, the one with the highest logit
        is used. Rows whose text is absent are left out.
        """
        target = pad_to_tokens(target, self.begin.unsqueeze(-1))
        present = (self.begin > IMPOSSIBLE_LOGIT / 2).any(1)  # rows without the text are not used
        labelled = (target != IGNORE).any(1) & present
        flags = target[labelled].clamp(min=0)
        tokens = torch.stack([self.begin, self.last], dim=1)[labelled]  # (N, 2, T)
        here = torch.stack([flags & SPAN_START, flags & SPAN_END], dim=1) > 0
        right = torch.cat([~here.any(-1, keepdim=True), here], dim=-1)
        logits = torch.cat([self.nothing[labelled].unsqueeze(-1), tokens], dim=-1)
        return logits, logits.masked_fill(~right, -torch.inf).argmax(-1)


def candidate_spans(begin: Tensor, last: Tensor, places: Tensor, max_length: int) -> dict[tuple[int, int], float]:
    """Return the scores of the best answers; an answer in several windows has its highest score.

    Args:
        begin: Logits that the answer begins at a token, (T,).
        last: Logits that the answer ends with a token, (T,).
        places: First character of each token and the character after its last, (T', 2).
        max_length: Maximum number of tokens of an answer.

    Returns:
        A dictionary from (first character, character after the last) to the sum of the two logits.
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
            # Windows overlap: a token of a later window may lie before a token of an earlier one.
            if 0 <= j - i < max_length and span[0] < span[1] and score > IMPOSSIBLE_LOGIT:
                scores[span] = max(score, scores.get(span, score))
    return scores
