"""Transform of images into pixels."""

import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from mm.configurable import Configurable
from mm.transforms.augment import AugmentError, augmented, tracked
from mm.transforms.stored import Stored
from mm.types import EncodedInput

ORIENTATION = 0x0112  # EXIF tag; 5 to 8: the image is rotated by 90 degrees
MODES = {1: "L", 3: "RGB"}
FITS = ("stretch", "crop", "pad")
ALPHA = ("RGBA", "LA", "PA", "RGBa", "La")
ANIMATED = ("GIF", "WEBP", "PNG", "TIFF", "AVIF")  # not MPO: the further images of a photo are its previews
DEEP = 65_535  # the largest value of 16 bits
DARK = 16  # an image whose largest value is below 1/16 of white looks black
COLOURED = 8  # minimum difference of the channels of a colour, in 0..255; JPEG causes up to 3 in grey
LOOKED = 256  # side in pixels to which images are reduced before colours are searched
# Exceptions that the decoders of Pillow raise for damaged files.
BROKEN = (OSError, SyntaxError, ValueError, TypeError, EOFError, IndexError, KeyError, OverflowError, MemoryError)
BROKEN += (Image.DecompressionBombError, struct.error, zlib.error)


class RangeError(ValueError):
    """Raised if the values of an image use only a tiny part of their range."""


class ImageTransform(Configurable):
    """Convert images to pixels (C, H, W) uint8, which `finish` normalises to float32.

    The raw input is a path, a `Stored` file, a PIL image, or an array (H, W), (H, W, C) or (C, H, W) of uint8 or of
    floats in 0..1. Images are rotated as their EXIF orientation says. The first image of an animation is used, and
    transparent images are composited onto white. `EncodedInput.notes` lists the information that was lost:
    `colour_dropped`, `frames_dropped`, `transparent`, `clipped` and `dark`; see `changes`.

    Args:
        size: Height and width in pixels.
        channels: Number of channels: 1 (grey) or 3 (colour).
        mean: Mean of each channel, for pixels in 0..1; None: 0.5.
        std: Standard deviation of each channel, for pixels in 0..1; None: 0.5.
        fit: How to fit images of another shape: `stretch`, `crop` (at the centre) or `pad` (with black).
        augment: torchvision v2 transforms of uint8 pixels (C, H, W), applied in training only.
        return_original_size: Whether `meta` contains the region of the original image that the pixels show and the size
            of the original. The region is `frame` (4,): x0, y0, x1 and y1 in pixels of the original; x0 exceeds x1, or
            y0 exceeds y1, if the image is mirrored. `size` (2,) is the width and height of the original after the
            rotation by EXIF.
        max_value: Value of white in images with one channel of 16 bits, such as 4095 if 12 bits are used; None: 65535.

    Raises:
        ValueError: If an argument is out of range. Calls of the transform raise it if the raw input is not an image.
    """

    def __init__(
        self,
        size: Sequence[int],
        channels: int,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        fit: str = "stretch",
        augment: Sequence[Any] | None = None,
        return_original_size: bool = False,
        max_value: int | None = None,
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
        if max_value is not None and not 0 < max_value <= DEEP:
            raise ValueError(f"max_value: got {max_value}, wanted from 1 to {DEEP}, or null for {DEEP}")
        self.max_value = DEEP if max_value is None else max_value
        self.height, self.width = size
        self.channels = channels
        self.fit = fit
        self.augment = list(augment or ())
        self.random = bool(self.augment)
        self.mean = torch.tensor([0.5] * channels if mean is None else [*mean]).view(-1, 1, 1)
        self.std = torch.tensor([0.5] * channels if std is None else [*std]).view(-1, 1, 1)
        self.scale, self.shift = 1 / (255 * self.std), self.mean / self.std  # for uint8 pixels
        self.filler = torch.zeros(channels, self.height, self.width, dtype=torch.uint8)
        self.multiple = 1
        self.meta: dict[str, Tensor] = {"frame": torch.zeros(4), "size": torch.zeros(2)} if return_original_size else {}

    def __call__(self, raw: Any, train: bool = False) -> EncodedInput:
        if isinstance(raw, np.ndarray) and raw.dtype == np.uint8 and (1, *raw.shape) == tuple(self.filler.shape):
            pixels, size = torch.tensor(raw).unsqueeze(0), (self.width, self.height)  # already in the required form
            notes: tuple[str, ...] = ()
        else:
            # Twice the size is enough for resizing; the JPEG decoder skips larger detail faster than resizing does.
            image, size, frames = decode(raw, 2 * max(self.height, self.width))
            notes = changes(image, self.channels, self.max_value) + (("frames_dropped",) if frames else ())
            image = self._resize(flatten(image, MODES[self.channels], self.max_value))
            pixels = torch.from_numpy(np.array(image, dtype=np.uint8)).view(self.height, self.width, self.channels)
            pixels = pixels.permute(2, 0, 1)
        part = torch.tensor([0.0, 0.0, 1.0, 1.0])  # region of the resized image that the augmented pixels show
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
            return EncodedInput([pixels.contiguous()], False, notes=notes)
        start, end = shown(self.fit, size, (self.width, self.height)).view(2, 2)
        frame = (start + part.view(2, 2) * (end - start)).flatten()
        meta = [{"frame": frame, "size": torch.tensor(size).float()}]
        return EncodedInput([pixels.contiguous()], False, meta, notes=notes)

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
    """Return the region of the original image that the resized pixels show, (4,): x0, y0, x1, y1 in its pixels.

    Args:
        fit: `stretch`, `crop` or `pad`.
        size: Width and height of the original in pixels.
        wanted: Width and height after resizing in pixels.
    """
    (width, height), (w, h) = size, wanted
    if fit == "crop":  # as ImageOps.fit
        wide, high = min(width, height * w / h), min(height, width * h / w)
        return torch.tensor([width - wide, height - high, width + wide, height + high]) / 2
    left = top = 0
    inner = (w, h)
    if fit == "pad":  # as ImageOps.pad, which rounds
        inner = (w, round(height / width * w)) if width * h > height * w else (round(width / height * h), h)
        left, top = round((w - inner[0]) / 2), round((h - inner[1]) / 2)
    x, y = width / inner[0], height / inner[1]  # pixels of the original per resized pixel
    return torch.tensor([-left * x, -top * y, (w - left) * x, (h - top) * y])


def open_image(raw: Any, least: int | None = None) -> Image.Image:
    """Open an image and rotate it as its EXIF orientation says.

    Args:
        raw: The raw input of an `ImageTransform`.
        least: Sufficient height and width in pixels. A JPEG file of at least twice this size is decoded at a fraction
            of its size, which is faster. None: decode at full size.

    Raises:
        ValueError: If `raw` is not an image, or if its file is damaged.
    """
    return open_sized(raw, least)[0]


def open_sized(raw: Any, least: int | None = None) -> tuple[Image.Image, tuple[int, int]]:
    """Return the result of `open_image`, and the width and height of the original after the rotation by EXIF.

    Args:
        raw: The raw input of an `ImageTransform`.
        least: Sufficient height and width in pixels; see `open_image`.
    """
    return decode(raw, least)[:2]


def decode(raw: Any, least: int | None = None) -> tuple[Image.Image, tuple[int, int], bool]:
    """Return the results of `open_sized`, and whether the file is an animation, of which the first image is used.

    Args:
        raw: The raw input of an `ImageTransform`.
        least: Sufficient height and width in pixels; see `open_image`.
    """
    if isinstance(raw, np.ndarray | Tensor):
        if isinstance(raw, Tensor):
            raw = (raw.detach().float() if raw.is_floating_point() else raw).cpu().numpy()
        image = from_array(raw)
        return image, image.size, False
    if not isinstance(raw, str | Path | Stored | Image.Image):
        raise ValueError(f"got {type(raw).__name__}, wanted an image: a path, a PIL image or an array")
    file: Any = raw.open() if isinstance(raw, Stored) else raw
    try:
        if isinstance(raw, Image.Image):
            image = ImageOps.exif_transpose(raw)
            return image, image.size, False
        with Image.open(file) as image:
            width, height = image.size
            more = image.format in ANIMATED and bool(getattr(image, "is_animated", False))
            deep = has_deep_colour(image)
            if least is not None:
                image.draft(None, (least, least))
            image.load()
            if deep:
                check_deep_colour(image)
            turned = image.getexif().get(ORIENTATION, 1) >= 5
            ImageOps.exif_transpose(image, in_place=True)
            return image, (height, width) if turned else (width, height), more
    except RangeError:
        raise
    except BROKEN as error:
        raise ValueError(f"can't read the image {raw}: {error or type(error).__name__}") from None


def has_deep_colour(image: Image.Image) -> bool:
    """Return whether a file has several channels of 16 bits, of which Pillow reads only the upper 8 bits."""
    many = len(image.getbands()) > 1
    return many and any(";16" in str(tile[3]) for tile in getattr(image, "tile", ()))


def check_deep_colour(image: Image.Image) -> None:
    """Raise an error if the upper 8 bits of each channel are nearly unused, for example if 12 bits were saved in 16.

    Raises:
        RangeError: If no value of the upper 8 bits reaches 16.
    """
    colours = [np.asarray(image.getchannel(band)) for band in image.getbands() if band != "A"]
    top = max(int(values.max()) for values in colours)
    if top < DARK:
        raise RangeError(
            f"the image has 16 bits a channel, but no value above {256 * top + 255:,} of {DEEP:,}, which is black but "
            "for rounding; save it with 8 bits a channel, scaled to their range"
        )


def changes(image: Image.Image, channels: int, max_value: int) -> tuple[str, ...]:
    """Return the names of the losses and assumptions in the conversion of an image by `flatten`.

    Args:
        image: The decoded image.
        channels: Number of channels of the result: 1 or 3.
        max_value: Value of white in images with one channel of 16 bits.

    Returns:
        Some of these names: `clipped` (there are values above `max_value`, which become white), `dark` (16 bits, and no
        value above 1/16 of `max_value`), `transparent` (the image is transparent in places, which are composited onto
        white) and `colour_dropped` (a colour image is converted to grey).
    """
    if image.mode in ("L", "1") and "transparency" not in image.info:
        return ()
    if image.mode.startswith("I"):
        top = int(np.asarray(image).max())
        return ("clipped",) if top > max_value else ("dark",) if 0 < top < max_value / DARK else ()
    notes: tuple[str, ...] = ()
    alpha = image.mode in ALPHA or "transparency" in image.info
    if alpha and image.convert("RGBA").getchannel("A").getextrema()[0] < 255:  # type: ignore[operator]
        notes += ("transparent",)
    if channels == 1 and image.mode not in ("F", "LA") and is_coloured(image):
        notes += ("colour_dropped",)
    return notes


def is_coloured(image: Image.Image) -> bool:
    """Return whether any region of an image is not grey."""
    small = image.convert("RGB")
    factor = max(1, min(small.size) // LOOKED)
    values = np.asarray(small.reduce(factor) if factor > 1 else small).astype(np.int16)
    return bool((values.max(2) - values.min(2)).max() > COLOURED)


def from_array(array: np.ndarray) -> Image.Image:
    """Convert an array to a PIL image.

    Args:
        array: Pixels (H, W), (H, W, C) or (C, H, W) of uint8, bool, or floats in 0..1.

    Raises:
        ValueError: If the array has another shape, type or range.
    """
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
            raise ValueError(
                f"got an array of {array.dtype} outside 0..1 (from {array.min():.6g} to {array.max():.6g}), wanted "
                "uint8, or floats in 0..1"
            )
        array = (array.astype(np.float32) * 255).round().astype(np.uint8)
    return Image.fromarray(np.ascontiguousarray(array))


def flatten(image: Image.Image, mode: str, max_value: int = DEEP) -> Image.Image:
    """Convert an image to a mode: composite transparency onto white, reduce 16 bits to 8, and convert the colours.

    Args:
        image: The image.
        mode: Pillow mode of the result: "L" or "RGB".
        max_value: Value of white in images with one channel of 16 bits; higher values also become white.

    Raises:
        ValueError: If the image has more than 16 bits per pixel.
    """
    if image.mode == mode and "transparency" not in image.info:
        return image
    if image.mode == "F":
        image = from_array(np.asarray(image))
    if image.mode.startswith("I"):  # Pillow clips 16 bits at 255 instead of scaling them
        values = np.asarray(image).astype(np.float32)
        if values.min() < 0 or values.max() > DEEP:
            raise ValueError("the image has more than 16 bits per channel; save it with 8 or 16 bits per channel")
        image = Image.fromarray((values / (max_value / 255)).round().clip(max=255).astype(np.uint8))
    if image.mode in ALPHA or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert(mode)
