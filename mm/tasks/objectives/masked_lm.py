"""Tokens of texts are hidden, and told from those on both sides."""

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

MASKED, OTHER = 0.8, 0.1  # of the hidden tokens, those that become a mask, and those that become any other


def draw(x: Tensor, mask: Tensor, words: TokenVocabulary, ratio: float, whole_words: bool, generator: Any) -> Tensor:
    """Which tokens are hidden: of each row this part of those that may be, at least one. (B, T), (B, T) -> (B, T) bool

    whole_words: tokens of one word are hidden together, in expectation as many; its first token says where it begins.
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
    ):  # a row's last word may be hidden by a part: then by lot all of it or nothing, but not if it is the only
        none = torch.zeros(len(x), x.shape[1] + 1, device=x.device)
        size, some = (none.scatter_add(1, word, tokens.float()) for tokens in (may, hidden))
        part = (some / size.clamp(min=1)).gather(1, word)  # of each token's word, how much
        lucky = part > torch.rand(len(x), 1, generator=generator).to(x.device)
        only = part.amax(1, keepdim=True) < 1
        hidden = (lucky | (only & (part > 0))) & may
    return hidden


class MaskedLMObjective(Objective):
    """Hide tokens of texts and predict them (BERT, Devlin 2019).

    Of the hidden tokens 80 % become the mask token, 10 % a random token, and 10 % stay.

    Args:
        model: The model.
        ratio: Part of a text's tokens that is hidden.
        whole_words: Whether all tokens of a word are hidden together.
        inputs: Names of the inputs; None: all texts.
        weight: Factor on the loss among those of several objectives.

    Raises:
        ValueError: If there is no text, its encoder has no token embedding, or `ratio` is not between 0 and 1.
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
        self.tables = [table_of(model, name, "masked_lm") for name in self.inputs]  # no modules of its own
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
        """-> ids (B, T), which are hidden (B, T)"""
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
        """-> sum of the cross-entropies of the hidden tokens, their count"""
        x: Any = batch.inputs[name]
        logits = self.decoders[name](features.tokens[hidden], self.tables[self.inputs.index(name)])
        return F.cross_entropy(logits, x[hidden], reduction="sum"), hidden.sum()
