"""Images -> pixels."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from mm.types import Read

MODES = {1: "L", 3: "RGB"}
FITS = ("stretch", "crop", "pad")


class Pixels:
    """Paths, PIL images or arrays -> normalised pixels (C, H, W) float32.

    size: height, width; channels: 1 or 3; mean, std: per channel, of pixels in 0..1; fit: how an image of another shape
    becomes `size`: stretched, cropped at its centre, or padded with black. augment: torchvision v2 transforms, in training
    only, on uint8 (C, H, W). Arrays are (H, W), (H, W, C) or (C, H, W), uint8 or float in 0..1. Transparency goes on white.
    Errors: ValueError where it is no image.
    """

    def __init__(
        self,
        size: Sequence[int],
        channels: int,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        fit: str = "stretch",
        augment: Sequence[Any] | None = None,
    ):
        if channels not in MODES:
            raise ValueError(f"channels: got {channels}, wanted 1 (grey) or 3 (colour)")
        if fit not in FITS:
            raise ValueError(f"fit: got '{fit}', wanted one of {', '.join(FITS)}")
        self.height, self.width = size
        self.channels = channels
        self.fit = fit
        self.augment = list(augment or ())
        self.mean = torch.tensor(mean or [0.5] * channels).view(-1, 1, 1)
        self.std = torch.tensor(std or [0.5] * channels).view(-1, 1, 1)
        self.filler = torch.zeros(channels, self.height, self.width)

    def __call__(self, raw: Any, train: bool = False) -> Read:
        if isinstance(raw, np.ndarray) and raw.dtype == np.uint8 and (1, *raw.shape) == tuple(self.filler.shape):
            pixels = torch.tensor(raw).unsqueeze(0)  # already as wanted
        else:
            image = self._resize(flatten(open_image(raw), MODES[self.channels]))
            pixels = torch.from_numpy(np.array(image, dtype=np.uint8)).view(self.height, self.width, self.channels)
            pixels = pixels.permute(2, 0, 1).contiguous()
        if train:
            for augment in self.augment:
                pixels = augment(pixels)
        return Read([(pixels.float() / 255 - self.mean) / self.std], False)

    def _resize(self, image: Image.Image) -> Image.Image:
        size = (self.width, self.height)
        if image.size == size:
            return image
        if self.fit == "crop":
            return ImageOps.fit(image, size, Image.Resampling.BILINEAR)
        if self.fit == "pad":
            return ImageOps.pad(image, size, Image.Resampling.BILINEAR)
        return image.resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0)


def open_image(raw: Any) -> Image.Image:
    """A path, a PIL image or an array -> a PIL image, upright. Errors: ValueError where it is none of them, or broken."""
    if isinstance(raw, str | Path):
        try:
            with Image.open(raw) as image:
                image.load()
                return ImageOps.exif_transpose(image)
        except (OSError, SyntaxError, Image.DecompressionBombError) as error:
            raise ValueError(f"can't read the image {raw}: {error}") from None
    if isinstance(raw, Image.Image):
        return raw
    if isinstance(raw, np.ndarray | Tensor):
        return from_array(np.asarray(raw))
    raise ValueError(f"got {type(raw).__name__}, wanted an image: a path, a PIL image or an array")


def from_array(array: np.ndarray) -> Image.Image:
    """(H, W), (H, W, C) or (C, H, W); uint8, or float in 0..1."""
    if array.ndim == 3 and array.shape[0] in MODES and array.shape[2] not in MODES:
        array = array.transpose(1, 2, 0)
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (3, 4)) or not array.size:
        raise ValueError(f"got an array of shape {array.shape}, wanted (H, W), (H, W, C) or (C, H, W) with 1 or 3 channels")
    if array.dtype != np.uint8:
        if not np.isfinite(array).all() or array.min() < 0 or array.max() > 1:
            raise ValueError(f"got an array of {array.dtype} outside 0..1, wanted uint8, or floats in 0..1")
        array = (array * 255).round().astype(np.uint8)
    return Image.fromarray(array)


def flatten(image: Image.Image, mode: str) -> Image.Image:
    """Transparency on white, 16 bits to 8, then to `mode`."""
    if image.mode == mode:
        return image
    if image.mode.startswith("I"):  # Pillow clips 16 bits at 255 instead of scaling them
        image = Image.fromarray((np.asarray(image).astype(np.float32) / 257).clip(0, 255).astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert(mode)
