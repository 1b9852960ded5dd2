"""Reading of the raw inputs of some rows as features of classical models."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from mm.baselines.pictures import SIDE, picture_histograms
from mm.baselines.sounds import mfcc_statistics
from mm.baselines.tables import sequence_statistics, table_features
from mm.batching import is_absent
from mm.data_source import DataSource
from mm.modalities import get_modality
from mm.types import InputData, Transform

MAX_SECONDS = 30  # of a sound
MAX_CHARACTERS = 2_000  # of a text
UNKNOWN_RATE = 16_000  # Hz, if no sound has a header that can be read


class InputFeatures(NamedTuple):
    """The features of one input for some rows."""

    values: Any  # texts, a list of str (N,), or numbers (N, D); those of absent rows are not used
    present: np.ndarray  # (N,) bool: whether the row has the input
    unreadable: dict[int, str]  # row of the data to its error; such rows are not present
    categories: Sequence[int] = ()  # indices of the features that are categories


def read_features(
    data: DataSource, name: str, rows: np.ndarray, train: np.ndarray, num_threads: int | None = None
) -> InputFeatures:
    """Read one input of some rows, with bounded size and duration.

    Args:
        data: The data, which is not changed.
        name: Name of the input.
        rows: Indices of the rows, (N,).
        train: Whether each of them is a training row, (N,) bool.
        num_threads: Number of threads that read and decode files; None: one per processor.
    """
    about = data.spec.inputs[name]
    faulty = {row for row, column in data.faults if column == data.column_of(name, row)}
    cells = data.inputs[name]
    raw = [None if row in faulty else cells[row] for row in rows.tolist()]
    if about.modality == "text":
        texts = [to_text(cell) for cell in raw]
        return InputFeatures(texts, np.array([bool(text) for text in texts]), {})
    values, errors = read_values(raw, choose_reader(about), num_threads or usable_processors())
    unreadable = {int(rows[i]): error for i, error in errors.items()}
    present = np.array([value is not None for value in values])
    filled = [value for value in values if value is not None]
    categories: Sequence[int] = ()
    if not filled:
        return InputFeatures(np.zeros((len(rows), 1), dtype=np.float32), present, unreadable)
    if about.modality == "tabular":
        joined, categories = table_features(filled, about.columns or (), train[present])
    elif isinstance(filled[0], np.ndarray):
        joined = np.stack(filled)
    else:
        by_step = len({value.shape for value in filled if isinstance(value, Tensor)}) > 1
        joined = np.stack([sequence_statistics(value, by_step) for value in filled])
    features = np.zeros((len(rows), joined.shape[1]), dtype=np.float32)
    features[present] = joined
    return InputFeatures(features, present, unreadable, categories)


def to_text(cell: Any) -> str:
    """Return the text of a cell, or the two texts of a pair with a space between them; "" if there is none."""
    text = " ".join(map(str, cell)) if isinstance(cell, list | tuple) else cell if isinstance(cell, str) else ""
    return text[:MAX_CHARACTERS].strip()


def choose_reader(about: InputData) -> Callable[[Any], Any]:
    """Return the function that reads one raw value of an input; it raises ValueError for an unreadable one.

    Sounds and pictures become features. The values of other modalities are those of their default transform.

    Args:
        about: Facts about the input.
    """
    modality = get_modality(about.modality)
    if about.modality == "audio":
        rate = about.sample_rate or UNKNOWN_RATE
        return partial(
            read_sound, transform=modality.transform(about, sample_rate=rate, max_length=MAX_SECONDS * rate), rate=rate
        )
    if about.modality == "vision":
        return partial(read_picture, transform=modality.transform(replace(about, size=(SIDE, SIDE), channels=3)))
    return partial(read_first_window, transform=modality.transform(about))


def read_first_window(raw: Any, transform: Transform) -> Any:
    """Return the first window of an encoded input; None if it has no tokens."""
    windows = transform(raw).windows
    return windows[0] if windows else None


def read_sound(raw: Any, transform: Transform, rate: int) -> np.ndarray:
    """Return the features of a sound."""
    return mfcc_statistics(transform(raw).windows[0], rate)


def read_picture(raw: Any, transform: Transform) -> np.ndarray:
    """Return the features of a picture."""
    return picture_histograms(transform(raw).windows[0].numpy())


def read_values(raw: Sequence[Any], read: Callable[[Any], Any], num_threads: int) -> tuple[list[Any], dict[int, str]]:
    """Read raw values in several threads.

    Args:
        raw: Raw value of each row.
        read: Function that reads a raw value.
        num_threads: Number of threads.

    Returns:
        The values in the same order, None for those that are absent or can't be read; and the index of each that can't
        be read, with its error.
    """

    def attempt(cell: Any) -> Any:
        if is_absent(cell):
            return None
        try:
            return read(cell)
        except ValueError as error:
            return error

    with ThreadPoolExecutor(num_threads) as pool:
        results = list(pool.map(attempt, raw))
    errors = {i: str(result) for i, result in enumerate(results) if isinstance(result, ValueError)}
    return [None if i in errors else result for i, result in enumerate(results)], errors


def usable_processors() -> int:
    """Return the number of processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
