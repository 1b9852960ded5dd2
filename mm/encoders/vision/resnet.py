"""Small residual network for images, trained from scratch, whose cost is bounded."""

from collections.abc import Sequence

from torch import Tensor, nn

from mm.absence import encode_present
from mm.configurable import Configurable
from mm.encoders._residual import MeanMaxPool, ResidualNetwork
from mm.layers import grid_position
from mm.types import Features, InputSpec

STAGE = 32  # pixels of the first stage, at most, in height and width


def stem_stride(size: Sequence[int]) -> int:
    """Return the stride that reduces images of a height and width to at most 32 x 32 cells: 1 up to 32 pixels."""
    return max(1, -(-max(size) // STAGE))


class VisionResNet(Configurable, nn.Module):
    """Small residual network, trained from scratch (He et al. 2016).

    The stride of the stem follows the size of the images, so that the first stage has at most 32 x 32 cells, and the
    cost of an image is bounded. Each further stage halves the height and width. The cells of the last stage are the
    tokens. In training, batch norm computes its statistics over the rows of the batch that have an image, see
    mm/absence.py.

    Args:
        channels: Number of channels of the image.
        size: Height and width of the images in pixels.
        widths: Number of channels of each stage.
        depth: Number of residual blocks of each stage.
        dropout: Dropout probability of the channels of the last stage.
    """

    def __init__(
        self,
        channels: int,
        size: Sequence[int],
        widths: Sequence[int] = (32, 64, 128),
        depth: int = 1,
        dropout: float = 0.1,
    ):
        super().__init__()
        stride = stem_stride(size)
        self.embed_dim = widths[-1]
        self.input = InputSpec(modality="vision", channels=channels, size=(int(size[0]), int(size[1])))
        self.network = ResidualNetwork(channels, tuple(widths), depth, (stride, stride))
        self.drop = nn.Dropout2d(dropout)
        self.pool = MeanMaxPool(self.embed_dim)

    def layer_order(self) -> list[list[str]]:
        """Return the prefixes of the parameter names of each layer, from input to output."""
        order = self.network.layer_order("network")
        return [*order[:-1], [*order[-1], "pool"]]

    def forward(self, x: Tensor, mask: Tensor) -> Features:
        """Encode a batch of images.

        Args:
            x: Normalised pixels, (B, C, H, W).
            mask: Whether each image is present, (B, 1) bool.

        Returns:
            Features with one token per cell of the last stage, (B, T, D).
        """
        return encode_present(self, self.encode, x, mask)

    def encode(self, x: Tensor, mask: Tensor) -> Features:
        grid = self.drop(self.network(x)[0])
        batch, _, height, width = grid.shape
        mask = mask.expand(-1, height * width)
        tokens = grid.flatten(2).transpose(1, 2) * mask.unsqueeze(-1)  # (B, H * W, D)
        return Features(tokens, mask, self.pool(tokens, mask), grid_position(height, width, batch, grid.device))
