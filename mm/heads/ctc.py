"""Head for transcripts that are not aligned with the input (connectionist temporal classification)."""

from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mm.heads.base import Head
from mm.predictions import Decoding, Transcript
from mm.types import IGNORE, Features


class CTCHead(Head):
    """Predict a symbol or a blank per token of an input (connectionist temporal classification, Graves et al. 2006).

    Args:
        classes: The symbols: characters or words.
        input: Name of the input whose tokens are classified.
        separator: String between two symbols of a text.
        embed_dim: Width D of the fused features.
        beam_width: Number of prefixes that the beam search keeps; 1: the most probable symbol of each token (greedy
            search).
        dropout: Dropout probability of the tokens.
        weight: Weight of this head's loss in the sum over several heads.

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
        """Return the logits (B, T, C + 1) of each token (B, T, D); the last class is the blank.

        For padding, the blank has a probability of 1.
        """
        logits = self.linear(self.drop(fused.tokens)).float()
        blank = F.one_hot(torch.tensor(len(self.classes), device=logits.device), logits.shape[-1])
        return Transcript(torch.where(fused.mask.unsqueeze(-1), logits, (blank - 1) * 1e4))

    def loss(self, prediction: Transcript, target: Tensor, fused: Features) -> tuple[Tensor, Tensor]:
        """Return the sum of the CTC losses, and the number of target symbols, of labelled rows that have tokens.

        Args:
            prediction: Logits, (B, T, C + 1).
            target: Symbol indices, (B, U); IGNORE for padding and unlabelled rows.
            fused: The fused Features.

        Raises:
            ValueError: If a row has fewer tokens than CTC needs: one per symbol, and one between two equal symbols.
        """
        length = (target != IGNORE).sum(1)
        tokens = fused.mask.sum(1)
        rows = ((length > 0) & (tokens > 0)).nonzero().flatten()
        if not len(rows):
            return prediction.logits.sum() * 0, length.new_zeros(())
        target, length, tokens = target[rows].clamp(min=0), length[rows], tokens[rows]
        place = torch.arange(1, target.shape[1], device=target.device)
        # Two equal symbols in succession need a blank between them.
        twice = ((target[:, 1:] == target[:, :-1]) & (place < length.unsqueeze(1))).sum(1)
        short = tokens < length + twice
        if short.any():
            first = self.separator.join(self.classes[i] for i in target[short][0][: length[short][0]].tolist())
            raise ValueError(
                f"{int(short.sum())} of {len(rows)} rows have fewer tokens of '{self.input}' than CTC needs, one per "
                f"symbol and one between two equal symbols: {int(tokens[short][0])} tokens for the "
                f"{int(length[short][0])} symbols of '{first}'; choose an encoder with smaller strides, set "
                "units=words in the head's target_codec, or leave such rows out"
            )
        scores = prediction.logits[rows].log_softmax(-1).transpose(0, 1)  # (T, rows, C + 1)
        # The length includes padding, whose tokens are certain to be blanks.
        whole = torch.full_like(tokens, len(scores))
        return F.ctc_loss(scores, target, whole, length, len(self.classes), "none").sum(), length.sum()

    @property
    def decoding(self) -> Decoding:
        return replace(super().decoding, separator=self.separator, beam_width=self.beam_width)
