"""The part of a text that answers a question."""

from dataclasses import replace

import torch
from torch import Tensor, nn

from mm.heads.base import Head
from mm.predictions import Decoding, Span
from mm.predictions.span import IMPOSSIBLE_LOGIT, SPAN_END, SPAN_START
from mm.predictions.token_categorical import pad_to_tokens
from mm.types import IGNORE, Features


class SpanHead(Head):
    """Predict where an answer begins and ends, by two logits for each token of an input, as BERT does (Devlin 2019).

    "No answer" is one more position, as for SQuAD 2 (Rajpurkar 2018). Of several right answers the sum of their
    probabilities is learnt (Clark 2018).

    Args:
        input: Name of the input that holds the answers.
        embed_dim: Width D of the fused features.
        max_answer_length: Largest number of tokens of an answer.
        n_best: Number of answers that a prediction lists.
        dropout: Applied to the tokens and to the pooled vector.
        weight: Factor on this head's loss among those of several heads.

    Raises:
        ValueError: If a number is below 1.
    """

    per_window = True  # its loss counts windows, each of which has or lacks an answer

    def __init__(
        self,
        *,
        input: str,
        embed_dim: int,
        max_answer_length: int = 64,
        n_best: int = 3,
        dropout: float = 0.0,
        weight: float = 1.0,
    ):
        super().__init__(input=input, weight=weight)
        for name, value in (("max_answer_length", max_answer_length), ("n_best", n_best)):
            if value < 1:
                raise ValueError(f"{name}: got {value}, wanted at least 1")
        self.max_answer_length = max_answer_length
        self.n_best = n_best
        self.drop = nn.Dropout(dropout)
        self.linear = nn.Linear(embed_dim, 2)
        self.none = nn.Linear(embed_dim, 2)

    def forward(self, fused: Features, target: Tensor | None = None) -> Span:
        """tokens (B, T, D), pooled (B, D)"""
        logits = self.linear(self.drop(fused.tokens)).float().masked_fill(~fused.mask.unsqueeze(-1), IMPOSSIBLE_LOGIT)
        return Span(logits[..., 0], logits[..., 1], self.none(self.drop(fused.pooled)).float())

    def loss(self, prediction: Span, target: Tensor, fused: Features) -> tuple[Tensor, Tensor]:
        """target (B, up to T) -> sum over labelled windows of the mean of both cross-entropies, their count"""
        target = pad_to_tokens(target, prediction.begin.unsqueeze(-1))
        labelled = (target != IGNORE).any(1) & fused.mask.any(1)  # an absent text tells nothing
        flags = target.clamp(min=0)
        total = prediction.begin.new_zeros(len(target))
        for place, (logits, flag) in enumerate(((prediction.begin, SPAN_START), (prediction.last, SPAN_END))):
            here = (flags & flag) > 0  # (B, T)
            right = torch.cat([~here.any(1, keepdim=True), here], dim=1)
            every = torch.cat([prediction.nothing[:, place, None], logits], dim=1).log_softmax(1)
            total = total - every.masked_fill(~right, IMPOSSIBLE_LOGIT).logsumexp(1) / 2
        return (total * labelled).sum(), labelled.sum()

    @property
    def decoding(self) -> Decoding:
        return replace(super().decoding, max_answer_length=self.max_answer_length, n_best=self.n_best)
