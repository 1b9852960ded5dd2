"""Residual convolutions with batch norm, whose statistics leave out padding."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class MaskedBatchNorm(nn.Module):
    """Batch norm over the real columns of a batch of feature maps (Ioffe and Szegedy 2015).

    Padding is left out of the statistics, and is zero in the result. Absent rows are left out by
    `mm.absence.encode_present`, with which an encoder calls its forward method.

    Args:
        channels: Number of channels C.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.norm = nn.BatchNorm1d(channels)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Normalise feature maps.

        Args:
            x: Feature maps, (B, C, H, W).
            mask: Mask of the columns, (B, W); None: all are real.
        """
        if mask is None:
            return self.norm(x.flatten(2)).view_as(x)
        if not self.training:  # no statistics are computed, and the shapes do not depend on the mask
            return self.norm(x.flatten(2)).view_as(x) * mask[:, None, None, :]
        columns = x.permute(0, 3, 1, 2)  # (B, W, C, H)
        normed = columns.new_zeros(columns.shape)
        normed[mask] = self.norm(columns[mask]).to(normed.dtype)
        return normed.permute(0, 2, 3, 1)


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with batch norm, added to their input (He et al. 2016).

    The second norm begins with the weight zero, so that a new block is the identity (Goyal et al. 2017).

    Args:
        ins: Number of channels of the input.
        outs: Number of channels of the result.
        stride: Stride of the first convolution; the cells of the result are every `stride`th cell of the input.
    """

    def __init__(self, ins: int, outs: int, stride: int = 1):
        super().__init__()
        self.stride = stride
        self.conv1 = nn.Conv2d(ins, outs, 3, stride, padding=1, bias=False)
        self.norm1 = MaskedBatchNorm(outs)
        self.conv2 = nn.Conv2d(outs, outs, 3, padding=1, bias=False)
        self.norm2 = MaskedBatchNorm(outs)
        nn.init.zeros_(self.norm2.norm.weight)
        self.shortcut = nn.Conv2d(ins, outs, 1, stride, bias=False) if ins != outs or stride != 1 else None

    def forward(self, x: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Convolve feature maps.

        Args:
            x: Feature maps, (B, C, H, W), which are zero where `mask` is False.
            mask: Mask of the columns, (B, W); None: all are real.

        Returns:
            The feature maps and their mask, with H and W divided by the stride and rounded up.
        """
        mask = None if mask is None else mask[:, :: self.stride]
        y = self.norm2(self.conv2(self.norm1(self.conv1(x), mask).relu()), mask)
        if self.shortcut is not None:
            x = self.shortcut(x)
        return F.relu(x + y), mask


class ResidualNetwork(nn.Module):
    """A convolutional stem, followed by stages of residual blocks. Each stage but the first halves the size.

    Args:
        channels: Number of channels of the input.
        widths: Number of channels of each stage.
        depth: Number of residual blocks of each stage.
        stem_stride: Stride of the stem in height and width. Its kernel covers twice the stride minus one cells.
    """

    def __init__(self, channels: int, widths: tuple[int, ...], depth: int, stem_stride: tuple[int, int]):
        super().__init__()
        self.stride = stem_stride
        height, width = (max(3, 2 * s - 1) for s in stem_stride)
        self.stem = nn.Conv2d(channels, widths[0], (height, width), stem_stride, (height // 2, width // 2), bias=False)
        self.norm = MaskedBatchNorm(widths[0])
        ins = [widths[0], *widths[:-1]]
        self.stages = nn.ModuleList(
            nn.ModuleList(ResidualBlock(c if i == 0 else w, w, 2 if i == 0 and n else 1) for i in range(depth))
            for n, (c, w) in enumerate(zip(ins, widths))
        )

    def forward(self, x: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Compute the last feature maps.

        Args:
            x: Input, (B, C, H, W), which is zero where `mask` is False.
            mask: Mask of the columns, (B, W); None: all are real.

        Returns:
            The feature maps and their mask.
        """
        mask = None if mask is None else mask[:, :: self.stride[1]]
        x = self.norm(self.stem(x), mask).relu()
        for stage in self.stages:
            assert isinstance(stage, nn.ModuleList)
            for block in stage:
                x, mask = block(x, mask)
        return x, mask

    def layer_order(self, prefix: str) -> list[list[str]]:
        """Return the prefixes of the parameter names of each layer, from input to output.

        Args:
            prefix: Name of this module in the encoder.
        """
        return [[f"{prefix}.stem", f"{prefix}.norm"], *([f"{prefix}.stages.{i}"] for i in range(len(self.stages)))]


class MeanMaxPool(nn.Module):
    """Pool tokens to their mean and maximum, and project both, with a further vector, to one vector.

    Args:
        dim: Width D of the tokens and of the result.
        further: Maps a further input (B, E) to the vector that is pooled with the tokens; None: there is none.
        width: Width of the result of `further`.
    """

    def __init__(self, dim: int, further: nn.Module | None = None, width: int = 0):
        super().__init__()
        self.further = further
        self.project = nn.Linear(2 * dim + width, dim)

    def forward(self, tokens: Tensor, mask: Tensor, extra: Tensor | None = None) -> Tensor:
        """Return the pooled vectors (B, D), with zeros for rows without a token.

        Args:
            tokens: Tokens, (B, T, D), which are not negative, and zero where `mask` is False.
            mask: Mask of the tokens, (B, T).
            extra: Input of `further`, (B, E); required if there is such a module.
        """
        count = mask.sum(1, keepdim=True)
        parts = [tokens.sum(1) / count.clamp(min=1), tokens.amax(1)]
        if self.further is not None:
            parts.append(self.further(extra))
        return self.project(torch.cat(parts, dim=1)) * (count > 0)
