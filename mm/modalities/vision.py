"""The vision modality, whose cells are paths of image files."""

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from mm.messages import say
from mm.modalities._probing import choose_files, existing, file_bytes, looked_at, no_file, unreadable
from mm.modalities.base import Modality
from mm.types import InputData, InputSpec, Transform

if TYPE_CHECKING:
    from PIL.Image import Image

LARGEST = 256  # pixels; images of the same size up to this keep it, others are resized to USUAL
USUAL = (224, 224)
# Maximum number of files for which all headers are read, in 1 s on a local disk and about 20 s on a network disk. Of
# more files, SAMPLE are read.
HEADERS = 10_000
SAMPLE = 2_000
DECODED = 64  # number of images with 16 bits that are decoded to find how many bits are used
MAJORITY = 0.95  # minimum fraction of images of the same size, so that a few others do not change it to 224 x 224


class Headers(NamedTuple):
    """Properties of image files, read from their headers.

    Files that can't be read are skipped; they are reported with their row when they are loaded.
    """

    sizes: Counter[tuple[int, int]]  # (height, width) after the rotation by EXIF: number of images
    grey: int  # number of images with one channel
    deep: list[str]  # paths of images with one channel of 16 bits
    read: int  # number of files that could be read


class Vision(Modality):
    """Image files, PIL images or arrays, converted to pixels (C, H, W)."""

    name = "vision"
    suffixes = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff")
    in_files = True
    is_sequence = False

    def probe(
        self,
        raw: Sequence[Any],
        source: Path,
        trained: bool,
        column: str = "",
        stats: np.ndarray | None = None,
        root: Path | None = None,
    ) -> InputData:
        """Return the common size, the number of channels and the largest value of the images, read from their headers.

        Of images with 16 bits a few are decoded to find the largest value.
        """
        paths = existing(raw, stats)
        if not paths and not trained:
            raise ValueError(no_file(source, self.name, root or source.parent))
        chosen = choose_files(paths, trained, HEADERS, SAMPLE) if paths else []
        headers = read_headers(chosen)
        if not headers.read:
            if trained:
                return InputData(modality=self.name)
            raise ValueError(unreadable(source, self.name, chosen))
        size = common_size(headers.sizes)
        top = largest_value(headers.deep)
        if not trained:
            where = f"{source.name}: {column or self.name}"
            say(f"{where}: {describe_pictures(headers, size, top)} ({looked_at(headers.read, len(paths))})")
        return InputData(
            modality=self.name,
            size=size,
            channels=1 if headers.grey == headers.read else 3,
            max_value=None if top is None else used_range(top),
        )

    def transform(self, data: InputData, need: InputSpec | None = None, **settings: Any) -> Transform:
        from mm.transforms.vision.pixels import ImageTransform

        filled = self.filled(data, need, "size", "channels", "mean", "std")
        arguments: dict[str, Any] = filled | {"max_value": data.max_value} | settings
        return ImageTransform(**arguments)

    def preview(self, raw: Any, x: Tensor, mask: Tensor, transform: Any) -> "Image":
        from PIL import Image

        pixels = ((x * transform.std + transform.mean).clamp(0, 1) * 255).round().byte()
        array = pixels.permute(1, 2, 0).numpy()  # (H, W, C)
        return Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array)

    def to_bytes(self, raw: Any) -> tuple[bytes, float]:
        from mm.transforms.stored import Stored
        from mm.transforms.vision.pixels import open_image

        data = file_bytes(raw)
        open_image(Stored(raw, lambda: data))
        return data, 0.0

    def random_input(self, spec: InputSpec, rows: int = 4) -> tuple[Tensor, Tensor]:
        height, width = spec.size or (32, 32)
        return torch.randn(rows, spec.channels or 3, height, width), torch.ones(rows, 1, dtype=torch.bool)

    def refill(self, spec: InputSpec, x: Tensor, mask: Tensor) -> Tensor:
        return torch.where(mask.view(-1, 1, 1, 1), x, torch.randn_like(x) * 0.1)


def read_headers(paths: Sequence[str]) -> Headers:
    """Return the properties of image files without decoding them."""
    from PIL import Image

    from mm.transforms.vision.pixels import BROKEN

    sizes: Counter[tuple[int, int]] = Counter()
    grey, deep = 0, []
    for path in paths:
        with suppress(*BROKEN), Image.open(path) as image:
            width, height = upright_size(image)
            sizes[height, width] += 1
            grey += image.mode in ("1", "L", "LA", "F") or image.mode.startswith("I")
            deep += [path] if image.mode.startswith("I") else []
    return Headers(sizes, grey, deep, sizes.total())


def upright_size(image: "Image") -> tuple[int, int]:
    """Return the width and height of an image after the rotation by EXIF, from its header.

    Args:
        image: An opened image file, whose pixels are not decoded.
    """
    from mm.transforms.vision.pixels import ORIENTATION

    # getexif decodes a complete PNG file if it has no EXIF data before its pixels
    exif = image.format != "PNG" or "exif" in image.info
    width, height = image.size
    return (height, width) if exif and image.getexif().get(ORIENTATION, 1) >= 5 else (width, height)


def read_size(path: str | Path) -> tuple[int, int] | None:
    """Return the width and height of an image file after the rotation by EXIF; None if it can't be read."""
    from PIL import Image

    from mm.transforms.vision.pixels import BROKEN

    with suppress(*BROKEN), Image.open(path) as image:
        return upright_size(image)
    return None


def common_size(sizes: Counter[tuple[int, int]]) -> tuple[int, int]:
    """Return the height and width to which images are resized.

    It is the size of the images if at least 95 % of them have the same size of at most LARGEST pixels, else USUAL.
    """
    (size, count), *_ = sizes.most_common()
    return size if count >= MAJORITY * sizes.total() and max(size) <= LARGEST else USUAL


def largest_value(paths: list[str]) -> int | None:
    """Return the largest value of a sample of images with 16 bits.

    It is None if no image can be read, or if an image has more than 16 bits.
    """
    from PIL import Image

    from mm.transforms.vision.pixels import BROKEN, DEEP

    top = None
    few = np.unique(np.linspace(0, len(paths) - 1, DECODED).astype(int)).tolist() if paths else []
    for path in [paths[i] for i in few]:
        with suppress(*BROKEN), Image.open(path) as image:
            top = max(top or 0, int(np.asarray(image).max()))
    return top if top is not None and top <= DEEP else None


def used_range(top: int) -> int | None:
    """Return the largest value of the smallest usual number of bits that contains `top`: 255, 1023, 4095 or 16383.

    It is None if all 16 bits are used, or if all images are black.
    """
    return next((2**bits - 1 for bits in (8, 10, 12, 14) if 0 < top < 2**bits), None)


def describe_pictures(headers: Headers, size: tuple[int, int], top: int | None) -> str:
    """Return a description of the sizes and colours of images for display to the user."""
    from mm.transforms.vision.pixels import DEEP

    sizes = headers.sizes
    shape = "{1}x{0} pixels".format(*size)
    if len(sizes) > 1 or size not in sizes:
        others = sizes.total() - sizes[size]
        shape += f", to which {others} of {len(sizes) - (size in sizes)} other sizes are brought"
    colours = "grey" if headers.grey == headers.read else "colour"
    if 0 < headers.grey < headers.read:
        colours += f" ({headers.grey} are grey)"
    found = f"pictures of {shape}, {colours}"
    if top is not None:
        white = used_range(top) or DEEP
        found += (
            f", 16 bits per channel; the largest value seen is {top:,}, so {white:,} is read as white "
            "(datamodule.transforms.vision.max_value says otherwise)"
        )
    return found
