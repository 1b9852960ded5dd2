"""Any image model of transformers."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoImageProcessor

from mm.absence import encode_present
from mm.configurable import Configurable
from mm.encoders._layers import huggingface_layers
from mm.encoders._source import huggingface_model
from mm.encoders.vision.conv import grid_features
from mm.layers import Pool
from mm.types import Features, InputSpec


def split_grid(tokens: int, height: int, width: int) -> tuple[int, int, int]:
    """(prefix tokens, rows, columns) of a sequence that ends in a grid with the image's aspect."""
    for prefix in range(tokens):
        rows = round(((tokens - prefix) * height / width) ** 0.5)
        columns = (tokens - prefix) // max(rows, 1)
        if rows * columns == tokens - prefix and rows * width == columns * height:
            return prefix, rows, columns
    raise ValueError(
        f"image_size: got {height}x{width} pixels, of which {tokens} tokens are no grid; wanted multiples of the patch"
    )


class HuggingFaceVision(Configurable, nn.Module):
    """Encode images by the last hidden state of any image model of transformers, such as ViT, DINOv2, Swin or ResNet.

    Size and channels of the images are those of the model's config. Batch norm sees the present rows of a training
    batch only, see mm/absence.py.

    Args:
        pretrained: Folder or hub name of the weights; exclusive with `config`.
        config: Fields of a transformers config with its `model_type`, for random weights.
        random_init: Whether only the architecture of `pretrained` is used, without its weights.
        mean: Mean of each channel, of pixels in 0..1; None: that saved with `pretrained`, or that of the data.
        std: Standard deviation of each channel; None: as for `mean`.
        pool: Pooling of the tokens: `mean`, `first` (the class token), `last`, `max` or `attention`.

    Raises:
        ValueError: If there is not exactly one source.
    """

    def __init__(
        self,
        pretrained: str | None = None,
        config: Mapping[str, Any] | None = None,
        random_init: bool = False,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        pool: str = "mean",
    ):
        super().__init__()
        self.model, plain_config = huggingface_model(pretrained, config, random_init, "vision")
        if pretrained and not (mean and std):
            processor = AutoImageProcessor.from_pretrained(pretrained, trust_remote_code=False)
            mean, std = mean or processor.image_mean, std or processor.image_std
        # A convolutional model has one width per stage, and no size of its own.
        self.embed_dim = plain_config.get("hidden_size") or plain_config["hidden_sizes"][-1]
        size = plain_config.get("image_size")
        size = (size, size) if isinstance(size, int) else size
        self.input = InputSpec(
            modality="vision",
            channels=plain_config["num_channels"],
            size=(size[0], size[1]) if size else None,
            mean=tuple(mean) if mean else None,
            std=tuple(std) if std else None,
        )
        self.architecture = {"pretrained": None, "config": plain_config, "random_init": True}
        self.architecture |= {"mean": mean and list(mean), "std": std and list(std)}
        self.pool = Pool(pool, self.embed_dim)

    def get_config(self) -> dict[str, Any]:
        """Return constructor arguments that build the same architecture without the weights it began with."""
        return super().get_config() | self.architecture

    def layer_order(self) -> list[list[str]]:
        """Return prefixes of the parameters' names, layer by layer from input to output."""
        size = self.input.size or (64, 64)
        layers = huggingface_layers(
            self.architecture["config"], "vision", {"pixel_values": torch.zeros(1, self.input.channels or 3, *size)}
        )
        return [*layers[:-1], [*layers[-1], "pool"]]

    def forward(self, x: Tensor, mask: Tensor) -> Features:
        """(B, C, H, W) normalised pixels, (B, 1)"""
        return encode_present(self, self.encode, x, mask)

    def encode(self, x: Tensor, mask: Tensor) -> Features:
        tokens = self.model(pixel_values=x).last_hidden_state
        if tokens.ndim == 4:  # a convolutional model's map
            return grid_features(tokens, mask, self.pool)
        prefix, rows, columns = split_grid(tokens.shape[1], x.shape[2], x.shape[3])
        grid = tokens[:, prefix:].transpose(1, 2).unflatten(2, (rows, columns))
        position = grid_features(grid, mask, self.pool).position
        centre = torch.full_like(position[:, :1], 0.5).expand(-1, prefix, -1)
        full = mask.expand(-1, tokens.shape[1])
        return Features(tokens, full, self.pool(tokens, full), torch.cat([centre, position], dim=1))
