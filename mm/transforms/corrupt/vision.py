"""Corruptions of pixels (C, H, W) uint8 of the size that the encoder expects.

A severity of 0 leaves the pixels unchanged, and 1 is the strongest corruption. Random numbers come from `rng`; with the
same generator, every severity uses the same noise, only stronger or weaker.
"""

from dataclasses import dataclass
from io import BytesIO

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mm.transforms.corrupt.settings import check_range


@dataclass(frozen=True)
class GaussianNoise:
    """Add white Gaussian noise with a standard deviation of severity * `sigma`.

    Args:
        sigma: Standard deviation at severity 1, for pixels in 0..1.
    """

    sigma: float = 0.5

    def __post_init__(self) -> None:
        check_range(self, 0, sigma=self.sigma)

    def __call__(self, pixels: Tensor, severity: float, rng: np.random.Generator) -> Tensor:
        # Not torchvision's, which rounds all noise towards zero and uses the global random generator.
        noise = torch.from_numpy(rng.standard_normal(pixels.shape, dtype=np.float32))
        return (pixels + 255 * self.sigma * severity * noise).round().clamp(0, 255).byte()


@dataclass(frozen=True)
class GaussianBlur:
    """Blur with a Gaussian kernel whose standard deviation is severity * `sigma` times the shorter side.

    Args:
        sigma: Standard deviation at severity 1, as a fraction of the shorter side of the image.
    """

    sigma: float = 0.2

    def __post_init__(self) -> None:
        check_range(self, 0, sigma=self.sigma)

    def __call__(self, pixels: Tensor, severity: float, rng: np.random.Generator) -> Tensor:
        from scipy.ndimage import gaussian_filter  # not torchvision's, whose kernel is not separable

        sigma = severity * self.sigma * min(pixels.shape[1:])
        blurred = gaussian_filter(pixels.float().numpy(), sigma, mode="nearest", axes=(1, 2))
        return torch.from_numpy(blurred).round().clamp(0, 255).byte()


@dataclass(frozen=True)
class Occlusion:
    """Cover a fraction severity * `fraction` of the area with a black rectangle at a random position.

    The rectangle has the aspect ratio of the image.

    Args:
        fraction: Fraction of the area at severity 1.
    """

    fraction: float = 0.8

    def __post_init__(self) -> None:
        check_range(self, 0, 1, fraction=self.fraction)

    def __call__(self, pixels: Tensor, severity: float, rng: np.random.Generator) -> Tensor:
        side = (severity * self.fraction) ** 0.5
        (height, width), place = pixels.shape[1:], rng.random(2)
        h, w = round(side * height), round(side * width)
        top, left = round(place[0] * (height - h)), round(place[1] * (width - w))
        covered = pixels.clone()
        covered[:, top : top + h, left : left + w] = 0
        return covered


@dataclass(frozen=True)
class Jpeg:
    """Compress the image as JPEG with a quality that falls from 100 to `quality` with increasing severity.

    Args:
        quality: JPEG quality at severity 1, in 1..100.
    """

    quality: int = 5

    def __post_init__(self) -> None:
        check_range(self, 1, 100, quality=self.quality)

    def __call__(self, pixels: Tensor, severity: float, rng: np.random.Generator) -> Tensor:
        if not severity:
            return pixels
        file = BytesIO()
        to_image(pixels).save(file, "JPEG", quality=round(100 - severity * (100 - self.quality)))
        return from_image(Image.open(file))


def to_image(pixels: Tensor) -> Image.Image:
    """Convert pixels (1, H, W) or (3, H, W) to a PIL image."""
    return Image.fromarray(pixels.permute(1, 2, 0).squeeze(2).contiguous().numpy())


def from_image(image: Image.Image) -> Tensor:
    """Convert a PIL image to pixels (C, H, W)."""
    return torch.from_numpy(np.array(image)).view(image.height, image.width, -1).permute(2, 0, 1).contiguous()
