"""Masked language modelling: mask tokens of a text and predict them from the tokens on both sides."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mm.model import MultimodalModel
from mm.tasks.objectives._tokens import table_of, token_decoders
from mm.tasks.pretraining import Objective, raw, select_inputs
from mm.tokenizers import TokenVocabulary
from mm.types import Batch, Features

MASKED, OTHER = 0.8, 0.1  # fractions of the masked tokens that become the mask token, and a random token


def draw(x: Tensor, mask: Tensor, words: TokenVocabulary, ratio: float, whole_words: bool, generator: Any) -> Tensor:
    """Draw the tokens to mask: a fraction of the tokens of each row, at least one, without special tokens.

    Args:
        x: Token ids, (B, T).
        mask: Whether each token is real, (B, T) bool.
        words: The vocabulary, with the special tokens and the tokens that begin a word.
        ratio: Fraction of the tokens to mask, in 0..1.
        whole_words: Whether to mask all tokens of a word together. The expected number of masked tokens stays the same.
        generator: Random generator on the CPU; None: torch's default generator.

    Returns:
        Whether each token is masked, (B, T) bool.
    """
    may = mask & ~torch.isin(x, words.special.to(x.device))
    lot = torch.rand(x.shape, generator=generator).to(x.device)
    word = (words.begins.to(x.device)[x] & may).cumsum(1)
    if whole_words:
        lot = lot.gather(1, word.clamp(max=x.shape[1] - 1))
    count = (ratio * may.sum(1, keepdim=True)).round().clamp(min=1)
    hidden = (lot.masked_fill(~may, torch.inf).argsort(1).argsort(1) < count) & may
    if (
        whole_words
    ):  # The count may end inside a word: chance masks it all or not at all, but all of it if it is the only one
        none = torch.zeros(len(x), x.shape[1] + 1, device=x.device)
        size, some = (none.scatter_add(1, word, tokens.float()) for tokens in (may, hidden))
        part = (some / size.clamp(min=1)).gather(1, word)  # masked fraction of each token's word
        lucky = part > torch.rand(len(x), 1, generator=generator).to(x.device)
        only = part.amax(1, keepdim=True) < 1
        hidden = (lucky | (only & (part > 0))) & may
    return hidden


class MaskedLMObjective(Objective):
    """Mask tokens of texts and predict them (BERT, Devlin 2019).

    80 % of the masked tokens are replaced by the mask token, 10 % by a random token, and 10 % stay unchanged.

    Args:
        model: The model.
        ratio: Fraction of the tokens of a text to mask, between 0 and 1.
        whole_words: Whether to mask all tokens of a word together.
        inputs: Names of the text inputs; None: all of them.
        weight: Weight of this loss in the sum of all objectives.

    Raises:
        ValueError: If the model has no text input, if its encoder has no token embedding, or if `ratio` is not between
            0 and 1.
    """

    def __init__(
        self,
        model: MultimodalModel,
        ratio: float = 0.15,
        whole_words: bool = False,
        inputs: Sequence[str] | None = None,
        weight: float = 1.0,
    ):
        super().__init__()
        if not 0 < ratio < 1:
            raise ValueError(f"task.objectives: got ratio={ratio}, wanted one in 0..1")
        self.inputs = select_inputs(model, "text", inputs, "masked_lm")
        self.ratio = ratio
        self.whole_words = whole_words
        self.losses = dict.fromkeys(self.inputs, weight)
        self.decoders = token_decoders(model, self.inputs, "masked_lm")
        self.tables = [table_of(model, name, "masked_lm") for name in self.inputs]  # a list: not submodules
        self.words: dict[str, TokenVocabulary] = {}

    def prepare(self, transforms: Mapping[str, Any]) -> None:
        self.words = {name: transforms[name].vocabulary() for name in self.inputs}
        for name, words in self.words.items():
            if words.mask is None:
                raise ValueError(
                    f"task.objectives: the tokenizer of '{name}' has no mask token; choose another, or causal_lm"
                )

    def corrupt(self, batch: Batch, generator: torch.Generator | None) -> dict[str, tuple[Tensor | Features, Tensor]]:
        return {name: self.hide_tokens(name, batch, generator) for name in self.inputs}

    def hide_tokens(self, name: str, batch: Batch, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        """Mask random tokens of an input.

        Args:
            name: Name of the input.
            batch: The batch.
            generator: Random generator of the masks; None: torch's default generator.

        Returns:
            The token ids with the replaced tokens, (B, T), and whether each token is to be predicted, (B, T) bool.
        """
        x = raw(batch, name)
        words = self.words[name]
        assert words.mask is not None
        hidden = draw(x, batch.masks[name], words, self.ratio, self.whole_words, generator)
        how = torch.rand(x.shape, generator=generator).to(x.device)
        other = torch.randint(len(words.begins), x.shape, generator=generator).to(x.device)
        shown = torch.where(how < MASKED, words.mask, torch.where(how < MASKED + OTHER, other, x))
        return torch.where(hidden, shown, x), hidden

    def compute_loss(
        self, batch: Batch, features: dict[str, Features], hidden: dict[str, Tensor]
    ) -> dict[str, tuple[Tensor, Tensor]]:
        return {name: self.error(name, batch, of, hidden[name]) for name, of in features.items()}

    def error(self, name: str, batch: Batch, features: Features, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Return the sum of the cross-entropy of the masked tokens of an input, and their number.

        Args:
            name: Name of the input.
            batch: The batch, with the original token ids.
            features: Features of the text with masked tokens.
            hidden: Whether each token is masked, (B, T) bool.

        Returns:
            The sum and the number of masked tokens, both scalar tensors.
        """
        x: Any = batch.inputs[name]
        logits = self.decoders[name](features.tokens[hidden], self.tables[self.inputs.index(name)])
        return F.cross_entropy(logits, x[hidden], reduction="sum"), hidden.sum()
