"""Corruptions of pixels (C, H, W) uint8, of the size that the encoder reads.

Severity is 0 (the pixels as they are) to 1; what is random comes from `rng`: the same one gives every severity the same
noise, stronger or weaker.
"""

from dataclasses import dataclass
from io import BytesIO

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mm.transforms.corrupt.settings import check


@dataclass(frozen=True)
class GaussianNoise:
    """Add white noise of standard deviation severity * `sigma`.

    Args:
        sigma: Standard deviation at severity 1, of pixels in 0..1.
    """

    sigma: float = 0.5

    def __post_init__(self) -> None:
        check(self, 0, sigma=self.sigma)

    def __call__(self, pixels: Tensor, severity: float, rng: np.random.Generator) -> Tensor:
        # Not torchvision's: it rounds all noise towards zero, and draws from the generator that all share.
        noise = torch.from_numpy(rng.standard_normal(pixels.shape, dtype=np.float32))
        return (pixels + 255 * self.sigma * severity * noise).round().clamp(0, 255).byte()


@dataclass(frozen=True)
class GaussianBlur:
    """Blur with a Gaussian of standard deviation severity * `sigma`.

    Args:
        sigma: Standard deviation at severity 1, as a part of the shorter side.
    """

    sigma: float = 0.2

    def __post_init__(self) -> None:
        check(self, 0, sigma=self.sigma)

    def __call__(self, pixels: Tensor, severity: float, rng: np.random.Generator) -> Tensor:
        from scipy.ndimage import gaussian_filter  # not torchvision's, whose kernel is not separated

        sigma = severity * self.sigma * min(pixels.shape[1:])
        blurred = gaussian_filter(pixels.float().numpy(), sigma, mode="nearest", axes=(1, 2))
        return torch.from_numpy(blurred).round().clamp(0, 255).byte()


@dataclass(frozen=True)
class Occlusion:
    """Cover severity * `fraction` of the area with a black rectangle of the image's shape, anywhere in it.

    Args:
        fraction: Part of the area at severity 1.
    """

    fraction: float = 0.8

    def __post_init__(self) -> None:
        check(self, 0, 1, fraction=self.fraction)

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
    """Save and read the image as JPEG of a quality that falls from 100 to `quality`.

    Args:
        quality: Quality at severity 1, from 1 to 100.
    """

    quality: int = 5

    def __post_init__(self) -> None:
        check(self, 1, 100, quality=self.quality)

    def __call__(self, pixels: Tensor, severity: float, rng: np.random.Generator) -> Tensor:
        if not severity:
            return pixels
        file = BytesIO()
        to_image(pixels).save(file, "JPEG", quality=round(100 - severity * (100 - self.quality)))
        return from_image(Image.open(file))


def to_image(pixels: Tensor) -> Image.Image:
    """(1, H, W) or (3, H, W)"""
    return Image.fromarray(pixels.permute(1, 2, 0).squeeze(2).contiguous().numpy())


def from_image(image: Image.Image) -> Tensor:
    """-> (C, H, W)"""
    return torch.from_numpy(np.array(image)).view(image.height, image.width, -1).permute(2, 0, 1).contiguous()
