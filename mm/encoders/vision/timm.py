"""Encoder with any image model of timm."""

import inspect
from collections.abc import Sequence
from typing import Any, cast

import timm
import torch
from timm.models import group_parameters
from torch import Tensor, nn

from mm.absence import encode_present
from mm.configurable import Configurable
from mm.encoders.vision.conv import grid_features
from mm.layers import Pool
from mm.types import Features, InputSpec


class TimmVision(Configurable, nn.Module):
    """Encode images by any model of timm. The cells of its last feature map are the tokens.

    The prefix tokens of a ViT, such as its class token, stand before them. In training, batch norm computes its
    statistics over the rows of the batch that have an image, see mm/absence.py.

    Args:
        name: Name of a timm model.
        pretrained: Whether to download the weights of timm, or the path of a file with weights.
        channels: Number of channels of the image.
        size: Height and width of the image in pixels. Pretrained weights replace it by the size of their training.
        mean: Mean of each channel, of pixels in 0..1; None: the mean of the pretrained weights, or the mean of the
            data.
        std: Standard deviation of each channel; None: as for `mean`.
        pool: Pooling of the tokens: `mean`, `first` (the class token of a ViT), `last`, `max` or `attention`.

    Raises:
        ValueError: If timm has no model of this name.
    """

    def __init__(
        self,
        name: str = "resnet18",
        pretrained: bool | str = False,
        *,
        channels: int,
        size: Sequence[int] | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        pool: str = "mean",
    ):
        super().__init__()
        if not timm.is_model(name):
            near = timm.list_models(f"*{name.split('_')[0]}*")[:5]
            raise ValueError(f"name: got '{name}', wanted a timm model such as {', '.join(near or ['resnet18'])}")
        weights = timm.get_pretrained_cfg(name)
        assert weights is not None
        if pretrained:
            size, mean, std = weights.input_size[1:], mean or weights.mean, std or weights.std
            mean, std = ([sum(v) / len(v)] * channels if len(v) != channels else v for v in (mean, std))
        extra: dict[str, Any] = {"img_size": tuple(size)} if size and weights.fixed_input_size else {}
        file: dict[str, Any] = {"pretrained_cfg_overlay": {"file": pretrained}} if isinstance(pretrained, str) else {}
        model = timm.create_model(name, pretrained=bool(pretrained), in_chans=channels, num_classes=0, **extra, **file)
        self.model = cast(Any, model)  # the common interface of timm's models has no type
        self.model.prune_intermediate_layers(1, prune_norm=False, prune_head=True)  # drops later layers
        self.embed_dim = list(self.model.feature_info)[-1]["num_chs"]
        self.input = InputSpec(
            modality="vision",
            channels=channels,
            size=(int(size[0]), int(size[1])) if size else None,
            mean=tuple(mean) if mean else None,
            std=tuple(std) if std else None,
        )
        self.architecture = {"pretrained": False, "size": size and list(size)}
        self.architecture |= {"mean": mean and list(mean), "std": std and list(std)}
        takes = inspect.signature(self.model.forward_intermediates).parameters
        self.prefix = self.model.num_prefix_tokens if "return_prefix_tokens" in takes else 0
        self.pool = Pool(pool, self.embed_dim)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor arguments that rebuild this architecture without downloading its pretrained weights.

        Returns:
            Keyword arguments of the constructor. The rebuilt module has random weights, to be replaced by
            `load_state_dict`.
        """
        return super().get_config() | self.architecture

    def layer_order(self) -> list[list[str]]:
        """Return the prefixes of the parameter names of each layer, from input to output.

        Raises:
            ValueError: If timm does not define the order of the layers of this model.
        """
        try:
            numbers = group_parameters(self.model, self.model.group_matcher(coarse=False), reverse=True)
        except (AttributeError, AssertionError) as error:  # some models of timm do not define an order
            raise ValueError(f"timm states no order of the layers of this model: {error}") from None
        layers: dict[int, list[str]] = {}
        for name, number in sorted(numbers.items(), key=lambda one: one[1]):
            layers.setdefault(number, []).append(f"model.{name}")
        order = list(layers.values())
        return [*order[:-1], [*order[-1], "pool"]]

    def forward(self, x: Tensor, mask: Tensor) -> Features:
        """Encode a batch of images.

        Args:
            x: Normalised pixels, (B, C, H, W).
            mask: Whether each image is present, (B, 1) bool.

        Returns:
            Features with one token per cell of the last feature map, (B, T, D), prefix tokens first.
        """
        return encode_present(self, self.encode, x, mask)

    def encode(self, x: Tensor, mask: Tensor) -> Features:
        extra = {"return_prefix_tokens": True} if self.prefix else {}
        last = self.model.forward_intermediates(
            x, indices=1, norm=True, output_fmt="NCHW", intermediates_only=True, **extra
        )[-1]
        if not self.prefix:
            return grid_features(last, mask, self.pool)
        grid, prefix = last  # (B, D, H, W), (B, P, D)
        cells = grid_features(grid, mask, self.pool)
        tokens = torch.cat([prefix, cells.tokens], dim=1)
        full = mask.expand(-1, tokens.shape[1])
        centre = torch.full_like(cells.position[:, :1], 0.5).expand(-1, self.prefix, -1)
        return Features(tokens, full, self.pool(tokens, full), torch.cat([centre, cells.position], dim=1))
