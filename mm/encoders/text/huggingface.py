"""Encoder with any text model of transformers."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from mm.configurable import Configurable
from mm.encoders._layers import huggingface_layers
from mm.encoders._source import huggingface_model, takes
from mm.layers import Pool, time_position
from mm.types import Features, InputSpec


def longest(model: PreTrainedModel) -> int | None:
    """Return the maximum number of tokens that the positions of a model allow; None if there is no maximum."""
    for name, module in model.named_modules():
        # RoBERTa and similar models count positions from the index after their padding index.
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding) and module.padding_idx is not None:
            return module.num_embeddings - module.padding_idx - 1
    field = model.config.attribute_map.get("max_position_embeddings", "max_position_embeddings")
    return model.config.to_dict().get(field)


class MarkerPool(nn.Module):
    """Pool a text by a projection of the concatenated tokens of its markers (Soares et al. 2019).

    Args:
        ids: Token IDs of the markers.
        dim: Width D of the tokens.
    """

    def __init__(self, ids: Sequence[int], dim: int):
        super().__init__()
        self.ids = list(ids)
        self.linear = nn.Linear(len(self.ids) * dim, dim)

    def forward(self, tokens: Tensor, mask: Tensor, x: Tensor) -> Tensor:
        """Return the pooled vectors (B, D), with zeros for rows without a token.

        If a marker occurs several times in a text, its first token is used. A marker that does not occur counts as
        zeros.

        Args:
            tokens: Tokens, (B, T, D).
            mask: Mask of the tokens, (B, T).
            x: Token IDs, (B, T).
        """
        found = torch.stack([(x == i) & mask for i in self.ids], dim=1)  # (B, M, T)
        first = found.int().argmax(2).unsqueeze(-1).expand(-1, -1, tokens.shape[2])
        picked = tokens.gather(1, first) * found.any(2, keepdim=True)  # (B, M, D)
        return self.linear(picked.flatten(1)) * mask.any(1, keepdim=True)


class HuggingFaceText(Configurable, nn.Module):
    """Encode texts by the last hidden state of any text model of transformers; of an encoder-decoder, by its encoder.

    Padding is on the right.

    Args:
        pretrained: Folder or hub name of the weights; exclusive with `config`.
        config: Fields of a transformers config with its `model_type`, for random weights.
        random_init: Whether to ignore the weights of `pretrained` and to use its architecture only.
        tokenizer: Folder or hub name of a tokenizer, or `bytes`; None: the tokenizer of `pretrained`, or `bytes` with a
            `config`.
        max_length: Maximum number of tokens per text; None: the number of positions of the model. Longer texts are
            truncated or, if the transform splits texts into windows, split into windows of this length.
        pool: Pooling of the tokens: `mean`, `first`, `last`, `max`, `attention`, or `markers`, a projection of the
            tokens of the markers (Soares et al. 2019).
        marker_tokens: Strings to add to the tokenizer as one token each, such as ['<e1>', '</e1>']. Each text must
            contain all of them.

    Raises:
        ValueError: If not exactly one of `pretrained` and `config` is given, if `max_length` exceeds the number of
            positions of the model, or if `pool=markers` is set without marker tokens.
    """

    def __init__(
        self,
        pretrained: str | None = None,
        config: Mapping[str, Any] | None = None,
        random_init: bool = False,
        tokenizer: str | None = None,
        max_length: int | None = None,
        pool: str = "mean",
        marker_tokens: Sequence[str] = (),
    ):
        super().__init__()
        self.model, plain_config = huggingface_model(pretrained, config, random_init, "text")
        limit = longest(self.model)
        if max_length and limit and max_length > limit:
            raise ValueError(f"max_length: got {max_length}, but the model has {limit} positions; set at most {limit}")
        self.embed_dim = self.model.config.hidden_size
        tokenizer = tokenizer or pretrained or "bytes"
        ids = self.add_marker_tokens(marker_tokens, tokenizer)
        if pool == "markers" and not ids:
            raise ValueError(
                "pool=markers: got no marker tokens; set marker_tokens: ['<e1>', '</e1>', '<e2>', '</e2>'] or others"
            )
        self.input = InputSpec(
            modality="text", tokenizer=tokenizer, max_length=max_length or limit, marker_tokens=ids or None
        )
        self.architecture = {
            "pretrained": None,
            "config": plain_config,
            "random_init": True,
            "tokenizer": self.input.tokenizer,
        }
        self.token_types = takes(self.model, "token_type_ids") and plain_config.get("type_vocab_size", 0) > 0
        at = list(ids.values())
        self.pool = MarkerPool(at, self.embed_dim) if pool == "markers" else Pool(pool, self.embed_dim)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor arguments that rebuild this architecture without downloading its pretrained weights.

        Returns:
            Keyword arguments of the constructor. The rebuilt module has random weights, to be replaced by
            `load_state_dict`.
        """
        return super().get_config() | self.architecture

    def add_marker_tokens(self, markers: Sequence[str], tokenizer: str) -> dict[str, int]:
        """Add embeddings for the marker tokens, and return the ID of each marker."""
        if not markers:
            return {}
        if tokenizer == "bytes":
            raise ValueError("marker_tokens: bytes have none; name a tokenizer's folder with tokenizer=...")
        if len(set(markers)) < len(markers) or not all(markers):
            raise ValueError(f"marker_tokens: got {list(markers)}, wanted different strings, none of them empty")
        first: int = self.model.get_input_embeddings().num_embeddings  # type: ignore[union-attr, assignment]
        self.model.resize_token_embeddings(first + len(markers), mean_resizing=False)
        return {marker: first + i for i, marker in enumerate(markers)}

    @property
    def token_embedding(self) -> nn.Embedding:
        return self.model.get_input_embeddings()  # type: ignore[return-value]

    def layer_order(self) -> list[list[str]]:
        """Return the prefixes of the parameter names of each layer, from input to output."""
        ids = {"input_ids": torch.zeros(1, 8, dtype=torch.long)}
        layers = huggingface_layers(self.architecture["config"], "text", ids)
        return [*layers[:-1], [*layers[-1], "pool"]]

    def forward(self, x: Tensor, mask: Tensor) -> Features:
        """Encode a batch of texts.

        Args:
            x: Token IDs, (B, T) int64.
            mask: Mask of the tokens, (B, T).

        Returns:
            Features with the tokens (B, T, D) of the model's last hidden state.
        """
        first = torch.arange(x.shape[1], device=x.device) == 0
        attended = mask | (first & ~mask.any(1, keepdim=True))  # some kernels return NaN for attention without any key
        types = {"token_type_ids": torch.zeros_like(x)} if self.token_types else {}
        tokens = self.model(input_ids=x, attention_mask=attended.long(), **types).last_hidden_state
        pooled = self.pool(tokens, mask, x) if isinstance(self.pool, MarkerPool) else self.pool(tokens, mask)
        return Features(tokens, mask, pooled, time_position(mask))
