"""What a few samples say of an input: sizes of pictures, rates of sounds."""

import os
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from mm.transforms.vision.pixels import BROKEN, ORIENTATION
from mm.types import InputData

LARGEST = 256  # pixels; images of one size up to this are read at it, others at USUAL
USUAL = (224, 224)


def look(raw: Sequence[Any], modality: str, source: Path, trained: bool) -> InputData:
    """What sixteen readable samples, spread over the rows, say of an input.

    Errors: ValueError where there is none, but for a trained model (`trained`), which knows.
    """
    if modality == "text":
        return InputData(modality="text")
    paths = [p for p in raw if p is not None and os.path.isfile(p)]
    if not paths:
        if trained:
            return InputData(modality=modality)
        raise ValueError(
            f"{source}: none of the files that its {modality} names is there; paths are relative to "
            f"{source.parent.resolve()}"
        )
    paths = [paths[i] for i in sorted(set(np.linspace(0, len(paths) - 1, 16).astype(int).tolist()))]
    if modality == "audio":
        rate = usual_rate(paths)
        if rate is None and not trained:
            raise ValueError(unreadable(source, modality, paths))
        return InputData(modality="audio", sample_rate=rate)
    sizes, grey = image_sizes(paths)
    if not sizes and trained:
        return InputData(modality=modality)
    if not sizes:
        raise ValueError(unreadable(source, modality, paths))
    size = sizes.pop() if len(sizes) == 1 else USUAL
    return InputData(modality="vision", size=size if max(size) <= LARGEST else USUAL, channels=1 if grey else 3)


def unreadable(source: Path, modality: str, paths: Sequence[str]) -> str:
    """Said where nothing can be told of an input, whatever on_error says."""
    return (
        f"{source}: none of {len(paths)} files of modality {modality} that were tried can be read, such as {paths[0]}; "
        "is this the right column, and are the files whole?"
    )


def usual_rate(paths: Sequence[str]) -> int | None:
    """Hz of most sounds; a broken file says nothing: its row is named when it is read."""
    import soundfile

    rates = []
    for path in paths:
        with suppress(soundfile.LibsndfileError, OSError, TypeError):
            rates.append(soundfile.info(path).samplerate)
    return Counter(rates).most_common(1)[0][0] if rates else None


def image_sizes(paths: Sequence[str]) -> tuple[set[tuple[int, int]], bool]:
    """Heights and widths as seen, and whether all are grey; a broken file says nothing."""
    from PIL import Image

    sizes, grey = set(), []
    for path in paths:
        with suppress(*BROKEN), Image.open(path) as image:
            turned = image.getexif().get(ORIENTATION, 1) >= 5
            sizes.add(image.size if turned else image.size[::-1])
            grey.append(image.mode in ("1", "L", "LA", "F") or image.mode.startswith("I"))
    return sizes, bool(grey) and all(grey)
