"""Sounds -> waveforms."""

from collections.abc import Sequence
from contextlib import suppress
from io import BytesIO
from math import ceil, gcd
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from mm.configurable import Configurable
from mm.transforms.audio.container import Container, inspect
from mm.transforms.augment import AugmentError, augmented
from mm.transforms.stored import Stored
from mm.transforms.windows import check_limit, check_multiple, limit, room
from mm.types import EncodedInput

LARGEST_KERNEL = 100_000_000  # floats of a resampling kernel, 400 MB: 11127 -> 16000 Hz, but no broken header
LARGEST_RATIO = 100  # of two rates; a header of 1 Hz would make hours of a second
LARGEST_SAMPLE = 4.0  # floats may exceed 1 a little, as lossy codecs and mixes do; 16 bits' range is 32,767
UNKNOWN_FRAMES = 1 << 48  # libsndfile gives more where a header does not say, as of FLAC files that were streamed
REWRITE = "write it anew (ffmpeg -i OLD NEW)"
MP3_FRAME = 1152  # samples; headers that count frames differ by one or two
MP3_HEAD = 4096  # bytes after an ID3 tag in which the first frame, and its count of all frames, lies


class AudioTransform(Configurable):
    """Convert sounds to mono waveforms (L,) float32 at one sampling rate.

    A sound is a path, a Stored file, an array (L,) or a pair of an array and its sampling rate. Several channels are
    averaged. `EncodedInput.notes` states what was changed: `upsampled`, `downsampled`, `mixed_down`.

    Args:
        sample_rate: Sampling rate in Hz, also that of an array alone.
        max_length: Maximum number of samples; None: no limit.
        overflow: Longer inputs: `truncate`, `truncate_left` (keep the end), `error`, or `window`: split into windows,
            which together weigh as one row in the loss.
        window_overlap: Fraction of a window that the next window repeats.
        augment: torchaudio transforms of (L,), applied in training only.
        pad_multiple: Number of samples to a multiple of which batches are padded.

    Raises:
        ValueError: If an argument is out of range. Reading raises it if the input is no sound, empty, truncated, not
            finite, or beyond -4..4.
    """

    def __init__(
        self,
        sample_rate: int,
        max_length: int | None = None,
        overflow: str = "truncate",
        window_overlap: float = 0.25,
        augment: Sequence[Any] | None = None,
        pad_multiple: int = 1,
    ):
        self.sample_rate = sample_rate
        self.max_length = max_length
        self.overflow = check_limit(max_length, overflow, window_overlap)
        self.window_overlap = window_overlap
        self.augment = list(augment or ())
        self.random = bool(self.augment)
        self.multiple = check_multiple(pad_multiple)
        self.filler = torch.zeros(sample_rate // 10)  # convolutions of an encoder need some length
        self.meta: dict[str, Tensor] = {}

    def __call__(self, raw: Any, train: bool = False) -> EncodedInput:
        wave, rate, channels = open_channels(raw, self.sample_rate)
        check_samples(wave)
        read = self.prepare(wave, rate, train)
        return read._replace(notes=("mixed_down", *read.notes)) if channels > 1 else read

    def prepare(self, wave: Tensor, rate: int, train: bool = False) -> EncodedInput:
        """Resample, augment and limit samples that were read.

        Args:
            wave: Samples of shape (L,), which may go beyond -1..1 here, as those of a corrupted sound do.
            rate: Their rate in Hz.
            train: Whether the row is one of training, and augmented.

        Raises:
            AugmentError: If the augmentations gave no finite samples.
        """
        notes = ()
        if rate != self.sample_rate:
            wave = resampled(wave, rate, self.sample_rate)
            notes = ("upsampled" if rate < self.sample_rate else "downsampled",)
        if train and self.augment:
            wave = augmented(self.augment, wave)
            if wave.dim() != 1 or not len(wave) or not wave.isfinite().all():
                raise AugmentError(f"the augmentations gave shape {tuple(wave.shape)}, wanted finite samples (L,)")
        return limit(wave, self.max_length, self.overflow, self.window_overlap, "samples")._replace(notes=notes)

    def finish(self, x: Tensor) -> Tensor:
        return x

    def lengths(self, raw: Sequence[Any]) -> list[float]:
        # rounded up, as resampling does; a duration is a quotient, and may come out a little above a whole sample
        counts = [ceil(seconds(x, self.sample_rate) * self.sample_rate - 1e-3) for x in raw]
        how = self.max_length, self.overflow, self.window_overlap, self.multiple
        return [room(count, *how) / self.sample_rate for count in counts]


def check_samples(wave: Tensor) -> None:
    """Errors: ValueError where there are none, or some are not finite or far beyond -1..1."""
    if not len(wave):
        raise ValueError("the sound is empty: it has 0 samples; leave the cell empty where there is no sound")
    low, high = (float(x) for x in wave.aminmax())  # NaN where any sample is
    if low >= -LARGEST_SAMPLE and high <= LARGEST_SAMPLE:
        return
    if not wave.isfinite().all():
        count = int((~wave.isfinite()).sum())
        raise ValueError(f"the sound holds NaN or infinite samples ({count} of {len(wave)}); write it anew")
    raise ValueError(
        f"the sound's samples go from {low:.6g} to {high:.6g}, wanted floats in about -1..1; divide them by the range "
        "of their integers, such as 32,768 for 16 bits"
    )


def seconds(raw: Any, sample_rate: int) -> float:
    """How long a sound is, by its header; 0 where there is none, or it does not say."""
    import soundfile

    if isinstance(raw, str | Path):
        with suppress(soundfile.LibsndfileError, OSError, TypeError):
            about = soundfile.info(raw)
            return about.duration if about.frames < UNKNOWN_FRAMES else 0.0
        return 0.0
    if isinstance(raw, Stored):
        return raw.seconds
    if isinstance(raw, tuple):
        return len(raw[0]) / raw[1]
    return 0.0 if raw is None else len(raw) / sample_rate


def resampled(wave: Tensor, rate: int, wanted: int) -> Tensor:
    """(L,) -> (L * wanted / rate,). Errors: ValueError where the rate is none, as in a broken header."""
    from torchaudio.functional import resample  # slow to import

    common = gcd(rate, wanted)
    old, new = rate // common, wanted // common
    strange = rate < 1 or max(rate, wanted) > LARGEST_RATIO * min(rate, wanted)
    if strange or new * (old + 12 * ceil(old / min(old, new))) > LARGEST_KERNEL:
        raise ValueError(
            f"{rate} Hz can't be resampled to {wanted} Hz; is the file's header broken? Else convert it first"
        )
    return resample(wave, rate, wanted)


def open_sound(raw: Any, sample_rate: int) -> tuple[Tensor, int]:
    """-> mono waveform (L,), its rate. Errors: ValueError where it is no sound, or broken."""
    wave, rate, _ = open_channels(raw, sample_rate)
    return wave, rate


def open_channels(raw: Any, sample_rate: int) -> tuple[Tensor, int, int]:
    """As `open_sound`, and beside it how many channels were averaged."""
    if isinstance(raw, str | Path | Stored):
        return read_channels(raw)
    if isinstance(raw, tuple) and len(raw) == 2 and isinstance(raw[0], np.ndarray | Tensor):
        if isinstance(raw[1], bool) or not isinstance(raw[1], int | np.integer) or raw[1] < 1:
            raise ValueError(f"got {raw[1]!r} as sample rate, wanted a whole number of Hz")
        return open_sound(raw[0], sample_rate)[0], int(raw[1]), 1
    if isinstance(raw, np.ndarray | Tensor):
        floats = raw.is_floating_point() if isinstance(raw, Tensor) else raw.dtype.kind == "f"
        if raw.ndim != 1 or not floats:
            raise ValueError(
                f"got {raw.dtype} of shape {tuple(raw.shape)}, wanted floats (L,) in -1..1; average the channels "
                "of a sound, and divide integers by their largest"
            )
        # copied: an array may be read-only or reversed, a tensor on another device
        wave = raw.detach().cpu().float() if isinstance(raw, Tensor) else torch.tensor(raw.astype(np.float32))
        return wave, sample_rate, 1
    raise ValueError(f"got {type(raw).__name__}, wanted a sound: a path, an array, or (array, sample rate)")


def read_file(path: str | Path | Stored) -> tuple[Tensor, int]:
    """-> mono waveform (L,), its rate. Errors: ValueError where libsndfile can't read it, or it is cut off."""
    return read_channels(path)[:2]


def read_channels(path: str | Path | Stored) -> tuple[Tensor, int, int]:
    """Read a whole sound file.

    An MP3 file that is cut off is recognised by the count of frames that encoders leave in a Xing or Info header, but
    for its last two frames, 50 ms. Without that header nothing tells a shorter MP3 file from a whole one.

    Args:
        path: A file that libsndfile reads.

    Returns:
        The mono waveform (L,), its rate, and how many channels were averaged.

    Raises:
        ValueError: libsndfile cannot read it, or the file holds less than its header promises.
    """
    import soundfile

    try:
        with path.open() if isinstance(path, Stored) else Path(path).open("rb") as file:
            about = inspect(file)
            source = (
                str(path) if about.unset_size is None and not isinstance(path, Stored) else whole_bytes(file, about)
            )
        if about.missing is not None:
            raise ValueError(cut_off(path, *about.missing))
        with soundfile.SoundFile(source) as sound:
            if sound.frames >= UNKNOWN_FRAMES:  # which soundfile cannot read in parts either
                raise ValueError(f"the header of the sound {path} does not say how long it is; {REWRITE}")
            data = sound.read(dtype="float32", always_2d=True)
            promised, rate, kind = sound.frames, sound.samplerate, sound.format
    # TypeError: a suffix that libsndfile takes as headerless; MemoryError: a broken header promises too many samples
    except (soundfile.LibsndfileError, OSError, TypeError, MemoryError) as error:
        cause = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise ValueError(f"can't read the sound {path}: {cause.rstrip('.')}") from None
    short = promised - len(data)
    if (kind == "FLAC" and short > 0) or (kind == "MP3" and short > 2 * MP3_FRAME and counts_frames(path)):
        raise ValueError(cut_off(path, promised, len(data), "samples"))
    return torch.from_numpy(data[:, 0] if data.shape[1] == 1 else data.mean(1)), rate, data.shape[1]


def whole_bytes(file: BinaryIO, about: Container) -> BytesIO:
    """The bytes of a file; a length that was left at 0 becomes "up to the end"."""
    file.seek(0)
    data = file.read()
    if about.unset_size is not None:
        data = data[: about.unset_size] + b"\xff" * 4 + data[about.unset_size + 4 :]
    return BytesIO(data)


def cut_off(path: str | Path | Stored, promised: int, found: int, unit: str) -> str:
    """The message for a file that holds less than its header promises."""
    return (
        f"the sound {path} is cut off: its header promises {promised:,} {unit}, the file holds {found:,}; copy it "
        f"again, or, if it is whole and its header is wrong, {REWRITE}"
    )


def counts_frames(path: str | Path | Stored) -> bool:
    """Whether an MP3 file has a Xing or Info header, which counts its frames."""
    with path.open() if isinstance(path, Stored) else Path(path).open("rb") as file:
        head = file.read(10)
        tag = 0
        if head[:3] == b"ID3":  # its size has 7 bits in each byte
            tag = 10 + sum((byte & 127) << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0)))
        file.seek(tag)
        start = file.read(MP3_HEAD)
    return b"Xing" in start or b"Info" in start
