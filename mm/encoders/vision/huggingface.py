"""Encoder with any image model of transformers."""

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
    """Split a sequence of tokens into prefix tokens and a grid with the aspect ratio of the image.

    Args:
        tokens: Number of tokens.
        height: Height of the image in pixels.
        width: Width of the image in pixels.

    Returns:
        The number of prefix tokens, and the numbers of rows and columns of the grid.

    Raises:
        ValueError: If no grid of tokens has the aspect ratio of the image.
    """
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

    The size and the channels of the images are those of the model's config. In training, batch norm computes its
    statistics over the rows of the batch that have an image, see mm/absence.py.

    Args:
        pretrained: Folder or hub name of the weights; exclusive with `config`.
        config: Fields of a transformers config with its `model_type`, for random weights.
        random_init: Whether to ignore the weights of `pretrained` and to use its architecture only.
        mean: Mean of each channel, of pixels in 0..1; None: the mean saved with `pretrained`, or the mean of the data.
        std: Standard deviation of each channel; None: as for `mean`.
        pool: Pooling of the tokens: `mean`, `first` (the class token), `last`, `max` or `attention`.

    Raises:
        ValueError: If not exactly one of `pretrained` and `config` is given.
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
        # A convolutional model has one width per stage, and no fixed image size.
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
        """Return the constructor arguments that rebuild this architecture without downloading its pretrained weights.

        Returns:
            Keyword arguments of the constructor. The rebuilt module has random weights, to be replaced by
            `load_state_dict`.
        """
        return super().get_config() | self.architecture

    def layer_order(self) -> list[list[str]]:
        """Return the prefixes of the parameter names of each layer, from input to output."""
        size = self.input.size or (64, 64)
        layers = huggingface_layers(
            self.architecture["config"], "vision", {"pixel_values": torch.zeros(1, self.input.channels or 3, *size)}
        )
        return [*layers[:-1], [*layers[-1], "pool"]]

    def forward(self, x: Tensor, mask: Tensor) -> Features:
        """Encode a batch of images.

        Args:
            x: Normalised pixels, (B, C, H, W).
            mask: Whether each image is present, (B, 1) bool.

        Returns:
            Features with the tokens (B, T, D) of the model's last hidden state, prefix tokens such as the class token
            first.
        """
        return encode_present(self, self.encode, x, mask)

    def encode(self, x: Tensor, mask: Tensor) -> Features:
        tokens = self.model(pixel_values=x).last_hidden_state
        if tokens.ndim == 4:  # the feature map of a convolutional model
            return grid_features(tokens, mask, self.pool)
        prefix, rows, columns = split_grid(tokens.shape[1], x.shape[2], x.shape[3])
        grid = tokens[:, prefix:].transpose(1, 2).unflatten(2, (rows, columns))
        position = grid_features(grid, mask, self.pool).position
        centre = torch.full_like(position[:, :1], 0.5).expand(-1, prefix, -1)
        full = mask.expand(-1, tokens.shape[1])
        return Features(tokens, full, self.pool(tokens, full), torch.cat([centre, position], dim=1))
