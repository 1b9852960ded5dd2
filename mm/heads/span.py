"""Head for extractive question answering, which predicts the span of a text that answers a question."""

from dataclasses import replace

import torch
from torch import Tensor, nn

from mm.heads.base import Head
from mm.predictions import Decoding, Span
from mm.predictions.span import IMPOSSIBLE_LOGIT, SPAN_END, SPAN_START
from mm.predictions.token_categorical import pad_to_tokens
from mm.types import IGNORE, Features


class SpanHead(Head):
    """Predict the first and the last token of an answer, by two logits per token, as BERT does (Devlin et al. 2019).

    "No answer" is one more position, as for SQuAD 2 (Rajpurkar et al. 2018). If a row has several right answers, the
    loss maximises the sum of their probabilities (Clark and Gardner 2018).

    Args:
        input: Name of the input that contains the answers.
        embed_dim: Width D of the fused features.
        max_answer_length: Maximum number of tokens of an answer.
        n_best: Number of answers that a prediction lists.
        dropout: Dropout probability of the tokens and of the pooled vector.
        weight: Weight of this head's loss in the sum over several heads.

    Raises:
        ValueError: If a number is below 1.
    """

    per_window = True  # the loss counts windows, each with or without an answer

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
        """Predict the first and last token of an answer from the tokens, and "no answer" from the pooled vector."""
        logits = self.linear(self.drop(fused.tokens)).float().masked_fill(~fused.mask.unsqueeze(-1), IMPOSSIBLE_LOGIT)
        return Span(logits[..., 0], logits[..., 1], self.none(self.drop(fused.pooled)).float())

    def loss(self, prediction: Span, target: Tensor, fused: Features) -> tuple[Tensor, Tensor]:
        """Return the sum over labelled windows of the mean of the two cross-entropies, and the number of these windows.

        Args:
            prediction: Logits of the T tokens and of no answer.
            target: Flags of the first and the last tokens of the answers, (B, up to T); IGNORE for unlabelled windows.
            fused: The fused Features; windows without a token are left out.
        """
        target = pad_to_tokens(target, prediction.begin.unsqueeze(-1))
        labelled = (target != IGNORE).any(1) & fused.mask.any(1)  # no loss for an absent text
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
