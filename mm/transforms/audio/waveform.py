"""Transform of audio clips into waveforms."""

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

LARGEST_KERNEL = 100_000_000  # floats of a resampling kernel, 400 MB: allows 11127 -> 16000 Hz
LARGEST_RATIO = 100  # of two sample rates; a header with 1 Hz would turn a second into hours
LARGEST_SAMPLE = 4.0  # lossy codecs and mixes may exceed 1 a little; unscaled 16-bit integers reach 32,767
UNKNOWN_FRAMES = 1 << 48  # libsndfile returns more if the header has no length, as in FLAC files that were streamed
REWRITE = "write it anew (ffmpeg -i OLD NEW)"
MP3_FRAME = 1152  # samples; frame counts of headers are off by one or two
MP3_HEAD = 4096  # number of bytes after the ID3 tag that contain the first frame, with the count of all frames


class AudioTransform(Configurable):
    """Convert audio clips to mono waveforms (L,) float32 at one sample rate, where L is the number of samples.

    The raw input is a path, a `Stored` file, an array (L,), or a pair of an array and its sample rate. Several channels
    are averaged. `EncodedInput.notes` lists the changes: `upsampled`, `downsampled`, `mixed_down`.

    Args:
        sample_rate: Sample rate of the waveforms in Hz, which is also assumed for an array without a sample rate.
        max_length: Maximum number of samples; None: no limit.
        overflow: Handling of longer clips: `truncate`, `truncate_left` (keep the end), `error`, or `window` (split into
            windows, which together have the weight of one row in the loss).
        window_overlap: Fraction of a window that the next window repeats.
        augment: torchaudio transforms of a waveform (L,), applied in training only.
        pad_multiple: Number of samples to a multiple of which batches are padded.

    Raises:
        ValueError: If an argument is out of range. Calls of the transform raise it if the raw input is not an audio
            clip, is empty or truncated, or has samples that are not finite or not in -4..4.
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
        self.filler = torch.zeros(sample_rate // 10)  # the convolutions of an encoder need a minimum length
        self.meta: dict[str, Tensor] = {}

    def __call__(self, raw: Any, train: bool = False) -> EncodedInput:
        wave, rate, channels = open_channels(raw, self.sample_rate)
        check_samples(wave)
        read = self.prepare(wave, rate, train)
        return read._replace(notes=("mixed_down", *read.notes)) if channels > 1 else read

    def prepare(self, wave: Tensor, rate: int, train: bool = False) -> EncodedInput:
        """Resample, augment and truncate a waveform, or split it into windows.

        Args:
            wave: Samples, (L,). They may exceed -1..1 here, as those of a corrupted clip do.
            rate: Sample rate of `wave` in Hz.
            train: Whether the row is a training row, which is augmented.

        Raises:
            AugmentError: If the augmentations do not return finite samples.
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
        # Rounded up, as resampling does; a duration is a quotient, which may exceed an integer by a rounding error.
        counts = [ceil(seconds(x, self.sample_rate) * self.sample_rate - 1e-3) for x in raw]
        how = self.max_length, self.overflow, self.window_overlap, self.multiple
        return [room(count, *how) / self.sample_rate for count in counts]


def check_samples(wave: Tensor) -> None:
    """Raise an error if a waveform is invalid.

    Raises:
        ValueError: If it has no samples, or has samples that are not finite or not in -4..4.
    """
    if not len(wave):
        raise ValueError("the sound is empty: it has 0 samples; leave the cell empty where there is no sound")
    low, high = (float(x) for x in wave.aminmax())  # NaN if any sample is NaN
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
    """Return the duration of an audio clip in seconds, read from its header.

    It is 0 if there is no clip, if the file can't be read, or if the header has no duration.

    Args:
        raw: The raw input of an `AudioTransform`.
        sample_rate: Sample rate of an array without its own, in Hz.
    """
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
    """Resample a waveform: (L,) -> (L * wanted / rate,).

    Args:
        wave: Samples, (L,).
        rate: Sample rate of `wave` in Hz.
        wanted: Sample rate of the result in Hz.

    Raises:
        ValueError: If `rate` can't be right, as in a file with a broken header, or if the resampling kernel would be
            too large.
    """
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
    """Return the mono waveform (L,) of an audio clip, and its sample rate in Hz.

    Args:
        raw: The raw input of an `AudioTransform`.
        sample_rate: Sample rate of an array without its own, in Hz.

    Raises:
        ValueError: If `raw` is not an audio clip, or if its file is damaged.
    """
    wave, rate, _ = open_channels(raw, sample_rate)
    return wave, rate


def open_channels(raw: Any, sample_rate: int) -> tuple[Tensor, int, int]:
    """Return the result of `open_sound` and the number of channels that were averaged.

    Args:
        raw: The raw input of an `AudioTransform`.
        sample_rate: Sample rate of an array without its own, in Hz.

    Raises:
        ValueError: If `raw` is not an audio clip, or if its file is damaged.
    """
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
    """Return the mono waveform (L,) of an audio file, and its sample rate in Hz.

    Raises:
        ValueError: If libsndfile can't read the file, or if the file is truncated.
    """
    return read_channels(path)[:2]


def read_channels(path: str | Path | Stored) -> tuple[Tensor, int, int]:
    """Read an audio file.

    A truncated MP3 file is recognised by the frame count that encoders write into a Xing or Info header. Up to two
    missing frames (50 ms) are accepted. Without this header a truncated MP3 file can't be distinguished from a complete
    one.

    Args:
        path: File in a format that libsndfile supports.

    Returns:
        The mono waveform (L,), its sample rate in Hz, and the number of channels that were averaged.

    Raises:
        ValueError: If libsndfile can't read the file, or if the file is shorter than its header says.
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
            if sound.frames >= UNKNOWN_FRAMES:  # soundfile can't read such files in blocks either
                raise ValueError(f"the header of the sound {path} does not say how long it is; {REWRITE}")
            data = sound.read(dtype="float32", always_2d=True)
            promised, rate, kind = sound.frames, sound.samplerate, sound.format
    # TypeError: a suffix that libsndfile treats as headerless; MemoryError: a broken header with too many samples
    except (soundfile.LibsndfileError, OSError, TypeError, MemoryError) as error:
        cause = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise ValueError(f"can't read the sound {path}: {cause.rstrip('.')}") from None
    short = promised - len(data)
    if (kind == "FLAC" and short > 0) or (kind == "MP3" and short > 2 * MP3_FRAME and counts_frames(path)):
        raise ValueError(cut_off(path, promised, len(data), "samples"))
    return torch.from_numpy(data[:, 0] if data.shape[1] == 1 else data.mean(1)), rate, data.shape[1]


def whole_bytes(file: BinaryIO, about: Container) -> BytesIO:
    """Return the bytes of an audio file; a length of 0 in its header is replaced by "up to the end of the file"."""
    file.seek(0)
    data = file.read()
    if about.unset_size is not None:
        data = data[: about.unset_size] + b"\xff" * 4 + data[about.unset_size + 4 :]
    return BytesIO(data)


def cut_off(path: str | Path | Stored, promised: int, found: int, unit: str) -> str:
    """Return the error message for a file that is shorter than its header says."""
    return (
        f"the sound {path} is cut off: its header promises {promised:,} {unit}, the file holds {found:,}; copy it "
        f"again, or, if it is whole and its header is wrong, {REWRITE}"
    )


def counts_frames(path: str | Path | Stored) -> bool:
    """Return whether an MP3 file has a Xing or Info header, which contains the number of frames."""
    with path.open() if isinstance(path, Stored) else Path(path).open("rb") as file:
        head = file.read(10)
        tag = 0
        if head[:3] == b"ID3":  # its size has 7 bits in each byte
            tag = 10 + sum((byte & 127) << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0)))
        file.seek(tag)
        start = file.read(MP3_HEAD)
    return b"Xing" in start or b"Info" in start
