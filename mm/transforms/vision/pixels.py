"""Images -> pixels."""

import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from mm.transforms.augment import AugmentError, augmented, tracked
from mm.transforms.stored import Stored
from mm.types import Read

ORIENTATION = 0x0112  # in EXIF; 5 to 8: the picture is turned by a quarter
MODES = {1: "L", 3: "RGB"}
FITS = ("stretch", "crop", "pad")
# What Pillow's decoders raise on broken files.
BROKEN = (OSError, SyntaxError, ValueError, TypeError, EOFError, IndexError, KeyError, OverflowError, MemoryError)
BROKEN += (Image.DecompressionBombError, struct.error, zlib.error)


class Pixels:
    """Paths, Stored files, PIL images or arrays -> pixels (C, H, W) uint8, which `finish` normalises to float32.

    size: height, width; channels: 1 or 3; mean, std: per channel, of pixels in 0..1; fit: how an image of another shape
    becomes `size`: stretched, cropped at its centre, or padded with black. augment: torchvision v2 transforms, in
    training only, on uint8 (C, H, W); frame: also tell, as meta, what of the original the pixels show: `frame` (4,),
    x0, y0, x1, y1 in its pixels, mirrored where x0 is above x1 or y0 above y1, and `size` (2,), its width and height,
    upright. Arrays are (H, W), (H, W, C) or (C, H, W), uint8 or float in 0..1. Transparency
    goes on white.
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
        frame: bool = False,
    ):
        if channels not in MODES:
            raise ValueError(f"channels: got {channels}, wanted 1 (grey) or 3 (colour)")
        if fit not in FITS:
            raise ValueError(f"fit: got '{fit}', wanted one of {', '.join(FITS)}")
        if len(size) != 2 or min(size) < 1:
            raise ValueError(f"size: got {list(size)}, wanted [height, width] in pixels")
        for name, values in (("mean", mean), ("std", std)):
            if values is not None and len(values) != channels:
                raise ValueError(f"{name}: got {list(values)}, wanted a number for each of {channels} channels")
        self.height, self.width = size
        self.channels = channels
        self.fit = fit
        self.augment = list(augment or ())
        self.random = bool(self.augment)
        self.mean = torch.tensor([0.5] * channels if mean is None else [*mean]).view(-1, 1, 1)
        self.std = torch.tensor([0.5] * channels if std is None else [*std]).view(-1, 1, 1)
        self.scale, self.shift = 1 / (255 * self.std), self.mean / self.std  # of bytes, in one pass each
        self.filler = torch.zeros(channels, self.height, self.width, dtype=torch.uint8)
        self.multiple = 1
        self.meta: dict[str, Tensor] = {"frame": torch.zeros(4), "size": torch.zeros(2)} if frame else {}

    def __call__(self, raw: Any, train: bool = False) -> Read:
        if isinstance(raw, np.ndarray) and raw.dtype == np.uint8 and (1, *raw.shape) == tuple(self.filler.shape):
            pixels, size = torch.tensor(raw).unsqueeze(0), (self.width, self.height)  # already as wanted
        else:
            # At least twice the size: what is beyond that, a JPEG's decoder leaves out faster than resizing does.
            image, size = open_sized(raw, 2 * max(self.height, self.width))
            image = self._resize(flatten(image, MODES[self.channels]))
            pixels = torch.from_numpy(np.array(image, dtype=np.uint8)).view(self.height, self.width, self.channels)
            pixels = pixels.permute(2, 0, 1)
        part = torch.tensor([0.0, 0.0, 1.0, 1.0])  # of the pixels that is shown once they are augmented
        if train and self.augment:
            if self.meta:
                pixels, part = tracked(self.augment, pixels.contiguous())
            else:
                pixels = augmented(self.augment, pixels.contiguous())
            if pixels.shape != self.filler.shape or pixels.dtype != torch.uint8:
                raise AugmentError(
                    f"the augmentations gave {pixels.dtype} of shape {tuple(pixels.shape)}, wanted uint8 as before, of "
                    f"{tuple(self.filler.shape)}; the size is set by `size`, normalising by `mean` and `std`"
                )
        if not self.meta:
            return Read([pixels.contiguous()], False)
        start, end = shown(self.fit, size, (self.width, self.height)).view(2, 2)
        frame = (start + part.view(2, 2) * (end - start)).flatten()
        return Read([pixels.contiguous()], False, [{"frame": frame, "size": torch.tensor(size).float()}])

    def finish(self, x: Tensor) -> Tensor:
        if x.dtype != torch.uint8:
            return x
        return x.float().mul_(self.scale.to(x.device)).sub_(self.shift.to(x.device))

    def lengths(self, raw: Sequence[Any]) -> list[float]:
        return [0.0 if x is None else 1.0 for x in raw]

    def _resize(self, image: Image.Image) -> Image.Image:
        size = (self.width, self.height)
        if image.size == size:
            return image
        if self.fit == "crop":
            return ImageOps.fit(image, size, Image.Resampling.BILINEAR)
        if self.fit == "pad":
            return ImageOps.pad(image, size, Image.Resampling.BILINEAR)
        return image.resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0)


def shown(fit: str, size: tuple[int, int], wanted: tuple[int, int]) -> Tensor:
    """What of a picture its resized pixels show. Sizes are width, height. -> (4,) x0, y0, x1, y1 in its own pixels"""
    (width, height), (w, h) = size, wanted
    if fit == "crop":  # as ImageOps.fit
        wide, high = min(width, height * w / h), min(height, width * h / w)
        return torch.tensor([width - wide, height - high, width + wide, height + high]) / 2
    left = top = 0
    inner = (w, h)
    if fit == "pad":  # as ImageOps.pad, which rounds
        inner = (w, round(height / width * w)) if width * h > height * w else (round(width / height * h), h)
        left, top = round((w - inner[0]) / 2), round((h - inner[1]) / 2)
    x, y = width / inner[0], height / inner[1]  # pixels of the picture for one
    return torch.tensor([-left * x, -top * y, (w - left) * x, (h - top) * y])


def open_image(raw: Any, least: int | None = None) -> Image.Image:
    """A path, a PIL image or an array -> a PIL image, upright. Errors: ValueError where it is none, or broken.

    least: pixels of height and width that are enough: a JPEG file twice as large, or more, is decoded at a fraction.
    """
    return open_sized(raw, least)[0]


def open_sized(raw: Any, least: int | None = None) -> tuple[Image.Image, tuple[int, int]]:
    """As `open_image`, and beside it the original's width and height, upright."""
    if isinstance(raw, np.ndarray | Tensor):
        if isinstance(raw, Tensor):
            raw = (raw.detach().float() if raw.is_floating_point() else raw).cpu().numpy()
        image = from_array(raw)
        return image, image.size
    if not isinstance(raw, str | Path | Stored | Image.Image):
        raise ValueError(f"got {type(raw).__name__}, wanted an image: a path, a PIL image or an array")
    file: Any = raw.open() if isinstance(raw, Stored) else raw
    try:
        if isinstance(raw, Image.Image):
            image = ImageOps.exif_transpose(raw)
            return image, image.size
        with Image.open(file) as image:
            width, height = image.size
            if least is not None:
                image.draft(None, (least, least))
            image.load()
            turned = image.getexif().get(ORIENTATION, 1) >= 5
            ImageOps.exif_transpose(image, in_place=True)
            return image, (height, width) if turned else (width, height)
    except BROKEN as error:
        raise ValueError(f"can't read the image {raw}: {error or type(error).__name__}") from None


def from_array(array: np.ndarray) -> Image.Image:
    """(H, W), (H, W, C) or (C, H, W); uint8, bool, or float in 0..1."""
    if array.ndim == 3 and array.shape[0] in MODES and array.shape[2] not in MODES:
        array = array.transpose(1, 2, 0)
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (3, 4)) or not array.size:
        raise ValueError(
            f"got an array of shape {array.shape}, wanted (H, W), (H, W, C) or (C, H, W) with 1 or 3 channels"
        )
    if array.dtype != np.uint8:
        if array.dtype.kind not in "fb":
            raise ValueError(f"got an array of {array.dtype}, wanted uint8, or floats in 0..1")
        if not np.isfinite(array).all() or array.min() < 0 or array.max() > 1:
            raise ValueError(f"got an array of {array.dtype} outside 0..1, wanted uint8, or floats in 0..1")
        array = (array.astype(np.float32) * 255).round().astype(np.uint8)
    return Image.fromarray(np.ascontiguousarray(array))


def flatten(image: Image.Image, mode: str) -> Image.Image:
    """Transparency on white, 16 bits to 8, then to `mode`. Errors: ValueError where the image has no such colours."""
    if image.mode == mode and "transparency" not in image.info:
        return image
    if image.mode == "F":
        image = from_array(np.asarray(image))
    if image.mode.startswith("I"):  # Pillow clips 16 bits at 255 instead of scaling them
        values = np.asarray(image).astype(np.float32)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError("the image has more than 16 bits a pixel; save it with 8 or 16")
        image = Image.fromarray((values / 257).round().astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert(mode)
