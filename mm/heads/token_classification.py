"""A tag per word: named entities by BIO, or plain tags such as parts of speech."""

from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor, nn

from mm.heads._classifying import ClassLoss
from mm.heads.base import Head
from mm.predictions import Decoding, TokenCategorical
from mm.predictions.token_categorical import pad_to_tokens
from mm.types import Features


class TokenClassificationHead(Head):
    """Classify each token of an input by a linear layer; the tag of a word is that of its first token.

    Args:
        classes: The tags.
        input: Name of the input whose tokens are classified.
        embed_dim: Width D of the fused features.
        counts: Words of the training rows with each tag.
        scheme: "bio", by which tags make up entities, or "plain", where a tag stands for itself.
        dropout: Dropout probability of the tokens.
        class_weights: None, "balanced" by the counts, or one number per tag: factors on the losses of its words.
        label_smoothing: Part of the truth that is spread over all tags (Szegedy 2016).
        focal_gamma: Exponent of the focal loss, 0 for cross-entropy (Lin 2017).
        weight: Factor on this head's loss among those of several heads.
    """

    def __init__(
        self,
        *,
        classes: Sequence[str],
        input: str,
        embed_dim: int,
        counts: Sequence[int] = (),
        scheme: str = "bio",
        dropout: float = 0.0,
        class_weights: str | Sequence[float] | None = None,
        label_smoothing: float = 0.0,
        focal_gamma: float = 0.0,
        weight: float = 1.0,
    ):
        super().__init__(classes=classes, input=input, weight=weight)
        self.class_loss = ClassLoss(self.classes, counts, class_weights, label_smoothing, focal_gamma)
        self.drop = nn.Dropout(dropout)
        self.linear = nn.Linear(embed_dim, len(self.classes))
        self.scheme = scheme

    def forward(self, fused: Features, target: Tensor | None = None) -> TokenCategorical:
        """Classify the tokens. (B, T, D) -> logits (B, T, C)"""
        return TokenCategorical(self.linear(self.drop(fused.tokens)))

    def loss(self, prediction: TokenCategorical, target: Tensor, fused: Features) -> tuple[Tensor, Tensor]:
        """(B, T, C), (B, up to T) -> sum over labelled words, their count (or their class weights)"""
        return self.class_loss(prediction.logits.flatten(0, 1), pad_to_tokens(target, prediction.logits).flatten())

    @property
    def decoding(self) -> Decoding:
        return replace(super().decoding, scheme=self.scheme)
