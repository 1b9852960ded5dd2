"""Each token of a text is told from those before it."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mm.model import MultimodalModel
from mm.tasks.objectives._tokens import table_of, token_decoders
from mm.tasks.pretraining import Objective, chosen, raw
from mm.types import Batch, Features


class CausalLMObjective(Objective):
    """Predict the next token of a text (Bengio 2003, Radford 2018) with an encoder that sees no later token.

    Args:
        model: The model.
        inputs: Names of the inputs; None: all texts.
        weight: Factor on the loss among those of several objectives.

    Raises:
        ValueError: If there is no text, or its encoder has no token embedding, or sees later tokens.
    """

    def __init__(self, model: MultimodalModel, inputs: Sequence[str] | None = None, weight: float = 1.0):
        super().__init__()
        self.inputs = chosen(model, "text", inputs, "causal_lm")
        self.losses = dict.fromkeys(self.inputs, weight)
        self.decoders = token_decoders(model, self.inputs, "causal_lm")
        self.tables = [table_of(model, name, "causal_lm") for name in self.inputs]  # no modules of its own
        for name in self.inputs:
            check_causal(model.encoders[model.shared_encoders.get(name, name)], name)

    def hide(self, batch: Batch, generator: torch.Generator | None) -> dict[str, tuple[Tensor | Features, Tensor]]:
        """All is shown; hidden are the tokens that another stands before. -> ids (B, T), (B, T - 1)"""
        parts = {name: raw(batch, name) for name in self.inputs}
        masks = {name: batch.masks[name] for name in self.inputs}
        return {name: (x, masks[name][:, 1:] & masks[name][:, :-1]) for name, x in parts.items()}

    def errors(
        self, batch: Batch, features: dict[str, Features], hidden: dict[str, Tensor]
    ) -> dict[str, tuple[Tensor, Tensor]]:
        return {name: self.error(name, batch, of, hidden[name]) for name, of in features.items()}

    def error(self, name: str, batch: Batch, features: Features, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """-> sum of the cross-entropies of the tokens that follow another, their count"""
        x: Any = batch.inputs[name]
        logits = self.decoders[name](features.tokens[:, :-1][hidden], self.tables[self.inputs.index(name)])
        return F.cross_entropy(logits, x[:, 1:][hidden], reduction="sum"), hidden.sum()


@torch.no_grad()
def check_causal(encoder: Any, name: str) -> None:
    """Errors: ValueError where a token changes what the encoder makes of those before it."""
    mode = encoder.training
    encoder.eval()
    ids = torch.arange(1, 9, device=next(encoder.parameters()).device).unsqueeze(0)
    other = ids.clone()
    other[0, -1] = 9
    mask = torch.ones_like(ids, dtype=torch.bool)
    before, after = (encoder(x, mask).tokens[:, :-1] for x in (ids, other))
    encoder.train(mode)
    if not torch.allclose(before, after, atol=1e-4):
        raise ValueError(
            f"task.objectives: causal_lm tells the next token, but the encoder of '{name}' sees those to come; "
            f"set model.encoders.{name}.causal=true (transformer) or .bidirectional=false (recurrent), or choose a "
            "decoder of transformers, such as gpt2"
        )
