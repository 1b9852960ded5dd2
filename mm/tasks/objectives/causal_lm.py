"""Causal language modelling: predict each token of a text from the tokens before it."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mm.model import MultimodalModel
from mm.tasks.objectives._tokens import table_of, token_decoders
from mm.tasks.pretraining import Objective, raw, select_inputs
from mm.types import Batch, Features


class CausalLMObjective(Objective):
    """Predict the next token of a text (Bengio 2003, Radford 2018), with an encoder that does not see later tokens.

    Args:
        model: The model.
        inputs: Names of the text inputs; None: all of them.
        weight: Weight of this loss in the sum of all objectives.

    Raises:
        ValueError: If the model has no text input, or if its encoder has no token embedding or sees later tokens.
    """

    def __init__(self, model: MultimodalModel, inputs: Sequence[str] | None = None, weight: float = 1.0):
        super().__init__()
        self.inputs = select_inputs(model, "text", inputs, "causal_lm")
        self.losses = dict.fromkeys(self.inputs, weight)
        self.decoders = token_decoders(model, self.inputs, "causal_lm")
        self.tables = [table_of(model, name, "causal_lm") for name in self.inputs]  # a list: not submodules
        for name in self.inputs:
            check_causal(model.encoders[model.shared_encoders.get(name, name)], name)

    def corrupt(self, batch: Batch, generator: torch.Generator | None) -> dict[str, tuple[Tensor | Features, Tensor]]:
        """Return the token ids unchanged, and which tokens to predict: all tokens that follow another token.

        Args:
            batch: The batch.
            generator: Not used, because nothing is masked at random.

        Returns:
            Input name to the token ids (B, T) and whether each token from the second on is to be predicted, (B, T - 1)
            bool.
        """
        parts = {name: raw(batch, name) for name in self.inputs}
        masks = {name: batch.masks[name] for name in self.inputs}
        return {name: (x, masks[name][:, 1:] & masks[name][:, :-1]) for name, x in parts.items()}

    def compute_loss(
        self, batch: Batch, features: dict[str, Features], hidden: dict[str, Tensor]
    ) -> dict[str, tuple[Tensor, Tensor]]:
        return {name: self.error(name, batch, of, hidden[name]) for name, of in features.items()}

    def error(self, name: str, batch: Batch, features: Features, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Return the sum of the cross-entropy of the predicted tokens of an input, and their number.

        Args:
            name: Name of the input.
            batch: The batch, with the token ids.
            features: Features of the input.
            hidden: Whether each token from the second on is to be predicted, (B, T - 1) bool.

        Returns:
            The sum and the number of tokens, both scalar tensors.
        """
        x: Any = batch.inputs[name]
        logits = self.decoders[name](features.tokens[:, :-1][hidden], self.tables[self.inputs.index(name)])
        return F.cross_entropy(logits, x[:, 1:][hidden], reduction="sum"), hidden.sum()


@torch.no_grad()
def check_causal(encoder: Any, name: str) -> None:
    """Check that no token changes the output of an encoder for the tokens before it.

    Args:
        encoder: The encoder of a text input.
        name: Name of the input, for the error message.

    Raises:
        ValueError: If the output for earlier tokens depends on a later token.
    """
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
