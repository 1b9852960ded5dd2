"""What is said or written, without knowing where: connectionist temporal classification."""

from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mm.heads.base import Head
from mm.predictions import Decoding, Transcript
from mm.types import IGNORE, Features


class CTCHead(Head):
    """Predict a symbol, or a blank, for each token of an input by connectionist temporal classification (Graves 2006).

    Args:
        classes: The symbols: characters or words.
        input: Name of the input whose tokens are read.
        separator: The text between two symbols.
        embed_dim: Width D of the fused features.
        beam_width: Number of prefixes that beam search keeps; 1 takes the best symbol of each token.
        dropout: Applied to the tokens.
        weight: Factor on this head's loss among those of several heads.

    Raises:
        ValueError: If `beam_width` is below 1.
    """

    def __init__(
        self,
        *,
        classes: Sequence[str],
        input: str,
        separator: str,
        embed_dim: int,
        beam_width: int = 1,
        dropout: float = 0.0,
        weight: float = 1.0,
    ):
        super().__init__(classes=classes, input=input, weight=weight)
        if beam_width < 1:
            raise ValueError(f"beam_width: got {beam_width}, wanted at least 1")
        self.separator = separator
        self.beam_width = beam_width
        self.drop = nn.Dropout(dropout)
        self.linear = nn.Linear(embed_dim, len(self.classes) + 1)

    def forward(self, fused: Features, target: Tensor | None = None) -> Transcript:
        """tokens (B, T, D) -> logits (B, T, C + 1), the last of no symbol; no symbol is certain where no token is"""
        logits = self.linear(self.drop(fused.tokens)).float()
        blank = F.one_hot(torch.tensor(len(self.classes), device=logits.device), logits.shape[-1])
        return Transcript(torch.where(fused.mask.unsqueeze(-1), logits, (blank - 1) * 1e4))

    def loss(self, prediction: Transcript, target: Tensor, fused: Features) -> tuple[Tensor, Tensor]:
        """(B, T, C + 1), (B, U) -> sum over labelled rows that have tokens, their symbols

        Errors: ValueError where a row has more symbols than tokens.
        """
        length = (target != IGNORE).sum(1)
        tokens = fused.mask.sum(1)
        rows = ((length > 0) & (tokens > 0)).nonzero().flatten()
        if not len(rows):
            return prediction.logits.sum() * 0, length.new_zeros(())
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
        scores = prediction.logits[rows].log_softmax(-1).transpose(0, 1)  # (T, rows, C + 1)
        # All tokens of a row count: those that are not real are blanks.
        whole = torch.full_like(tokens, len(scores))
        return F.ctc_loss(scores, target, whole, length, len(self.classes), "none").sum(), length.sum()

    @property
    def decoding(self) -> Decoding:
        return replace(super().decoding, separator=self.separator, beam_width=self.beam_width)
