"""Any text model of transformers."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from mm.encoders._source import huggingface_model, takes
from mm.layers import Pool, time_position
from mm.types import Features, InputSpec


def longest(model: PreTrainedModel) -> int | None:
    """The tokens that a model's positions allow; None where it has none."""
    for name, module in model.named_modules():
        # RoBERTa and its kin count positions from behind their padding index.
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding) and module.padding_idx is not None:
            return module.num_embeddings - module.padding_idx - 1
    field = model.config.attribute_map.get("max_position_embeddings", "max_position_embeddings")
    return model.config.to_dict().get(field)


class HuggingFaceText(nn.Module):
    """The last hidden state of any text model of transformers; of an encoder-decoder, of its encoder.

    pretrained, config, random_init: as in `huggingface_model`. Real tokens come first in a row, padding after.
    tokenizer: null: that of `pretrained`, or "bytes" with a `config`.
    max_length: in tokens; null: all that the model's positions allow.
    Errors: ValueError where there is not exactly one source, or max_length is beyond the model's positions.
    """

    def __init__(
        self,
        pretrained: str | None,
        config: Mapping[str, Any] | None,
        random_init: bool,
        tokenizer: str | None,
        max_length: int | None,
        pool: str,
    ):
        super().__init__()
        self.model, plain_config = huggingface_model(pretrained, config, random_init, "text")
        limit = longest(self.model)
        if max_length and limit and max_length > limit:
            raise ValueError(f"max_length: got {max_length}, but the model has {limit} positions; set at most {limit}")
        self.embed_dim = self.model.config.hidden_size
        self.input = InputSpec(
            modality="text", tokenizer=tokenizer or pretrained or "bytes", max_length=max_length or limit
        )
        self.architecture = {
            "pretrained": None,
            "config": plain_config,
            "random_init": True,
            "tokenizer": self.input.tokenizer,
        }
        self.token_types = takes(self.model, "token_type_ids") and plain_config.get("type_vocab_size", 0) > 0
        self.pool = Pool(pool, self.embed_dim)

    def forward(self, x: Tensor, mask: Tensor) -> Features:
        """(B, T) int64, (B, T)"""
        first = torch.arange(x.shape[1], device=x.device) == 0
        attended = mask | (first & ~mask.any(1, keepdim=True))  # attention to nothing is not finite in every kernel
        types = {"token_type_ids": torch.zeros_like(x)} if self.token_types else {}
        tokens = self.model(input_ids=x, attention_mask=attended.long(), **types).last_hidden_state
        return Features(tokens, mask, self.pool(tokens, mask), time_position(mask))
