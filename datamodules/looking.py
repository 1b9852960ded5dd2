"""What the headers of files say of an input: sizes and colours of pictures, rates of sounds."""

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mm.messages import say
from mm.transforms.vision.pixels import BROKEN, DEEP, ORIENTATION
from mm.types import InputData

LARGEST = 256  # pixels; images of one size up to this are read at it, others at USUAL
USUAL = (224, 224)
FEW = 16  # files that are looked at for a trained model, which knows its inputs
# Headers of pictures that are read at most: 1 s on a local disk, some 20 s on a network's. Of more files, SAMPLE are
# drawn. The header of a sound may take ten times as long.
HEADERS = 10_000
SAMPLE = 2_000
SOUNDS = 500
DECODED = 64  # pictures of 16 bits that are decoded to see how many of the bits are used
MAJORITY = 0.95  # of pictures that have one size: a few others do not make all of them 224 x 224


class Headers(NamedTuple):
    """What the headers of pictures say; a broken file says nothing: its row is named when it is read."""

    sizes: Counter[tuple[int, int]]  # height, width as seen
    grey: int  # how many have one channel
    deep: list[str]  # paths of those with one channel of 16 bits
    read: int  # how many could be read


def look(
    raw: Sequence[Any], modality: str, source: Path, trained: bool, column: str = "", stats: np.ndarray | None = None
) -> InputData:
    """Find out what an input's files have in common, and print it.

    Args:
        raw: Paths by row; None names no file.
        modality: Of the input.
        source: The table that names the files.
        trained: The rows are for a trained model, which knows; nothing is printed, and nothing missed.
        column: The column that names the files.
        stats: Sizes of the files, as `paths.stat_files` gives them; None: all are there.

    Returns:
        Size, channels and largest value of pictures; the most common rate of sounds.

    Raises:
        ValueError: No file can be read, and the model is not trained.
    """
    if modality == "text":
        return InputData(modality="text")
    paths = [p for row, p in enumerate(raw) if p is not None and (stats is None or stats[row, 0] >= 0)]
    if not paths:
        if trained:
            return InputData(modality=modality)
        raise ValueError(
            f"{source}: none of the files that its {modality} names is there; paths are relative to "
            f"{source.parent.resolve()}"
        )
    most, sample = (FEW, FEW) if trained else (SOUNDS, SOUNDS) if modality == "audio" else (HEADERS, SAMPLE)
    chosen = [paths[i] for i in choose(len(paths), most, sample)]
    what = f"{source.name}: {column or modality}"
    if modality == "audio":
        rates = sample_rates(chosen)
        if not rates and not trained:
            raise ValueError(unreadable(source, modality, chosen))
        if not trained:
            say(f"{what}: {rates_found(rates)} ({looked_at(rates.total(), len(paths))})")
        return InputData(modality="audio", sample_rate=rates.most_common(1)[0][0] if rates else None)
    headers = read_headers(chosen)
    if not headers.read and trained:
        return InputData(modality=modality)
    if not headers.read:
        raise ValueError(unreadable(source, modality, chosen))
    size = common_size(headers.sizes)
    channels = 1 if headers.grey == headers.read else 3
    top = largest_value(headers.deep)
    max_value = None if top is None else used_range(top)
    if not trained:
        say(f"{what}: {pictures_found(headers, size, top)} ({looked_at(headers.read, len(paths))})")
    return InputData(modality="vision", size=size, channels=channels, max_value=max_value)


def choose(count: int, most: int, sample: int) -> list[int]:
    """Which of some files are looked at.

    Args:
        count: How many there are.
        most: Up to so many, all are.
        sample: Of more, so many, drawn by chance (the same each time), FEW of them at even distances.

    Returns:
        Their numbers, in order.
    """
    even = np.linspace(0, count - 1, FEW).astype(int)
    if count <= most:
        return list(range(count))
    rest = max(0, sample - FEW)
    return sorted({*even.tolist(), *np.random.default_rng(0).choice(count, rest, replace=False).tolist()})


def unreadable(source: Path, modality: str, paths: Sequence[str]) -> str:
    """Said where nothing can be told of an input, whatever on_error says."""
    return (
        f"{source}: none of {len(paths)} files of modality {modality} that were tried can be read, such as {paths[0]}; "
        "is this the right column, and are the files whole?"
    )


def looked_at(count: int, total: int) -> str:
    return f"all {total} looked at" if count == total else f"{count} of {total} looked at"


def sample_rates(paths: Sequence[str]) -> Counter[int]:
    """Hz of sounds, and how many have them; a broken file says nothing: its row is named when it is read."""
    import soundfile

    rates: Counter[int] = Counter()
    for path in paths:
        with suppress(soundfile.LibsndfileError, OSError, TypeError):
            rates[soundfile.info(path).samplerate] += 1
    return rates


def rates_found(rates: Counter[int]) -> str:
    """As a person reads it."""
    (usual, count), *others = rates.most_common()
    if not others:
        return f"sounds at {usual:,} Hz"
    more = ", ".join(f"{number} at {rate:,}" for rate, number in others[:4])
    return f"sounds at {usual:,} Hz, to which others are resampled: {count} at {usual:,}, {more}"


def read_headers(paths: Sequence[str]) -> Headers:
    """Of pictures, nothing decoded."""
    from PIL import Image

    sizes: Counter[tuple[int, int]] = Counter()
    grey, deep = 0, []
    for path in paths:
        with suppress(*BROKEN), Image.open(path) as image:
            # getexif decodes a whole PNG file that has no EXIF before its pixels
            exif = image.format != "PNG" or "exif" in image.info
            width, height = image.size
            turned = exif and image.getexif().get(ORIENTATION, 1) >= 5
            sizes[(width, height) if turned else (height, width)] += 1
            grey += image.mode in ("1", "L", "LA", "F") or image.mode.startswith("I")
            deep += [path] if image.mode.startswith("I") else []
    return Headers(sizes, grey, deep, sizes.total())


def common_size(sizes: Counter[tuple[int, int]]) -> tuple[int, int]:
    """The size at which pictures are read: that of nearly all of them, where it is small, else USUAL."""
    (size, count), *_ = sizes.most_common()
    return size if count >= MAJORITY * sizes.total() and max(size) <= LARGEST else USUAL


def largest_value(paths: list[str]) -> int | None:
    """The largest value of a few pictures of 16 bits; None where none can be read, or one has more bits."""
    from PIL import Image

    top = None
    few = np.unique(np.linspace(0, len(paths) - 1, DECODED).astype(int)).tolist() if paths else []
    for path in [paths[i] for i in few]:
        with suppress(*BROKEN), Image.open(path) as image:
            top = max(top or 0, int(np.asarray(image).max()))
    return top if top is not None and top <= DEEP else None


def used_range(top: int) -> int | None:
    """The largest value of as many bits as are used: 255, 1,023, 4,095, 16,383; None: 65,535, or all are black."""
    return next((2**bits - 1 for bits in (8, 10, 12, 14) if 0 < top < 2**bits), None)


def pictures_found(headers: Headers, size: tuple[int, int], top: int | None) -> str:
    """As a person reads it."""
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
            f", 16 bits a pixel; the largest value seen is {top:,}, so {white:,} is read as white "
            "(datamodule.transforms.vision.max_value says otherwise)"
        )
    return found
