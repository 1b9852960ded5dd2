"""Small convolutional network for images, trained from scratch."""

from collections.abc import Sequence

from torch import Tensor, nn

from mm.configurable import Configurable
from mm.layers import Pool, grid_position
from mm.types import Features, InputSpec


def grid_features(grid: Tensor, mask: Tensor, pool: Pool) -> Features:
    """Convert a feature map to Features whose tokens are its cells, row by row.

    Args:
        grid: Feature map, (B, D, H, W).
        mask: Whether each image is present, (B, 1).
        pool: Pooling of the tokens.
    """
    batch, _, height, width = grid.shape
    tokens = grid.flatten(2).transpose(1, 2)  # (B, H * W, D)
    mask = mask.expand(-1, height * width)
    return Features(tokens, mask, pool(tokens, mask), grid_position(height, width, batch, grid.device))


class VisionConv(Configurable, nn.Module):
    """Small convolutional network with group norm, trained from scratch (Wu and He 2018).

    The cells of the last feature map are the tokens. The first block keeps the size of the image, and each further
    block halves it. With three blocks, 8x8 pixels become 2x2 tokens.

    Args:
        channels: Number of channels of the image.
        widths: Number of channels of each block.
        depth: Number of residual convolutions of each block except the first.
        groups: Number of groups of group norm; it must divide each width.
        pool: Pooling of the tokens: `mean`, `first`, `last`, `max` or `attention`. On MNIST, training converges several
            times faster with `max` than with `mean`.

    Raises:
        ValueError: If a width is not a multiple of `groups`.
    """

    def __init__(
        self,
        channels: int,
        widths: Sequence[int] = (32, 64, 128),
        depth: int = 1,
        groups: int = 8,
        pool: str = "max",
    ):
        super().__init__()
        for width in widths:
            if width % groups:
                raise ValueError(f"widths: got {width}, wanted multiples of groups={groups}; change either")
        self.embed_dim = widths[-1]
        self.input = InputSpec(modality="vision", channels=channels)
        ins = [channels, *widths[:-1]]
        self.blocks = nn.ModuleList(
            [self.conv(c, w, groups, stride=1 if i == 0 else 2) for i, (c, w) in enumerate(zip(ins, widths))]
        )
        # Not after the first block, where at full resolution they would cost more than all other layers together.
        self.deeper = nn.ModuleList(
            [nn.ModuleList([self.conv(w, w, groups) for _ in range(depth if i else 0)]) for i, w in enumerate(widths)]
        )
        self.pool = Pool(pool, self.embed_dim)

    @staticmethod
    def conv(ins: int, outs: int, groups: int, stride: int = 1) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(ins, outs, 3, stride, padding=1, bias=False), nn.GroupNorm(groups, outs), nn.ReLU()
        )

    def layer_order(self) -> list[list[str]]:
        """Return the prefixes of the parameter names of each layer, from input to output."""
        order = [[f"blocks.{i}", f"deeper.{i}"] for i in range(len(self.blocks))]
        return [*order[:-1], [*order[-1], "pool"]]

    def forward(self, x: Tensor, mask: Tensor) -> Features:
        """Encode a batch of images.

        Args:
            x: Normalised pixels, (B, C, H, W).
            mask: Whether each image is present, (B, 1) bool.

        Returns:
            Features with one token per cell of the last feature map, (B, T, D).
        """
        for block, deeper in zip(self.blocks, self.deeper):
            x = block(x)
            assert isinstance(deeper, nn.ModuleList)
            for conv in deeper:
                x = x + conv(x)
        return grid_features(x, mask, self.pool)
