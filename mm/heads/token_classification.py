"""Head that predicts one tag per word: named entities in the BIO scheme, or plain tags such as parts of speech."""

from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor, nn

from mm.heads._classifying import ClassLoss
from mm.heads.base import Head
from mm.predictions import Decoding, TokenCategorical
from mm.predictions.token_categorical import pad_to_tokens
from mm.types import Features


class TokenClassificationHead(Head):
    """Classify each token of an input by a linear layer. The tag of a word is the tag of its first token.

    Args:
        classes: The tags.
        input: Name of the input whose tokens are classified.
        embed_dim: Width D of the fused features.
        counts: Number of words of the training rows with each tag.
        scheme: Scheme of the tags: `bio`, in which several tags form one entity, or `plain`, in which each tag is
            independent.
        dropout: Dropout probability of the tokens.
        class_weights: Weight of each tag in the loss: None (all 1), `balanced` (inversely proportional to `counts`), or
            one number per tag.
        label_smoothing: Fraction of the target probability that is spread evenly over all tags (Szegedy et al. 2016).
        focal_gamma: Exponent of the focal loss; 0: cross-entropy (Lin et al. 2017).
        weight: Weight of this head's loss in the sum over several heads.

    Raises:
        ValueError: If the class weights do not match the tags, or if a number is out of range.
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
        """Return the logits (B, T, C) of the tokens (B, T, D)."""
        return TokenCategorical(self.linear(self.drop(fused.tokens)))

    def loss(self, prediction: TokenCategorical, target: Tensor, fused: Features) -> tuple[Tensor, Tensor]:
        """Return the sum of the losses of the labelled words, and their number or total class weight.

        Args:
            prediction: Logits, (B, T, C).
            target: Tag index of the first token of each word, (B, up to T); IGNORE for other tokens and unlabelled
                words.
            fused: The fused Features, which this loss does not use.
        """
        return self.class_loss(prediction.logits.flatten(0, 1), pad_to_tokens(target, prediction.logits).flatten())

    @property
    def decoding(self) -> Decoding:
        return replace(super().decoding, scheme=self.scheme)
