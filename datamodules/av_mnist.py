"""AV-MNIST, rebuilt: MNIST images with most of their variance removed, and spoken digits that are often wrong.

The original data set has no texts; texts that name the digit are an addition.
"""

import gzip
import hashlib
import json
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mm.data.module import DataModule
from mm.data.table import Table
from mm.data.targets import add_target
from mm.datamodules.digits import WORDS
from mm.files import whole
from mm.messages import say
from mm.transforms.audio.waveform import read_file
from mm.types import DataSpec, InputData

SPEAKERS = ("jackson", "nicolas", "theo", "yweweler")
TRAIN_TAKES, TEST_TAKES = range(40), range(40, 50)
VALIDATION = 5_000  # the last of the 60,000 training images
WRONG = 0.644  # probability of a random clip; it limits the accuracy from audio alone to 0.42
MNIST = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
CORRUPTIONS = ("wrong_clip", "snr", "clean")
VERSION = 2  # version of the build; a cached set of another version is not used


class Built(NamedTuple):
    """All arrays of the built data set, as they are cached."""

    images: np.ndarray  # (70000, 28, 28) uint8
    clips: np.ndarray  # (2000, size, size) uint8 log-spectrograms; under corruption=snr (70000, size, size)
    clip: np.ndarray  # (70000,) index into clips
    label: np.ndarray  # (70000,)


class Indexed(Sequence[np.ndarray]):
    """Sequence of `values[of[row]]` for each row, which copies nothing."""

    def __init__(self, values: np.ndarray, of: np.ndarray):
        self.values = values
        self.of = of

    def __len__(self) -> int:
        return len(self.of)

    def __getitem__(self, row: Any) -> Any:
        return self.values[self.of[row]]


class AVMNISTDataModule(DataModule):
    """Images and spectrograms of one digit: 55,000 / 5,000 / 10,000 rows (Vielzeuf 2018, Liang 2021).

    Args:
        path: Folder with the idx files of MNIST in mnist/ and the Free Spoken Digit Dataset in fsdd/recordings/.
        components: Number of principal components (of the training images) to which every image is reduced.
        size: Height and width of the log-spectrograms in pixels.
        corruption: Corruption of the audio: "wrong_clip" (a clip of a random digit, with probability 0.644), "snr"
            (white noise at `snr` dB, drawn for each row) or "clean".
        snr: Signal-to-noise ratio in dB, with `corruption="snr"`.
        data_seed: Random seed of the pairs of clips and images, and of the noise.
        cache: Folder in which the built data set is cached.
        text: Templates of a text input, such as ['the digit {}']; None: no text input.
        **shared: Arguments of `DataModule`.

    Raises:
        ValueError: If a source file is missing, or if an argument has an unsupported value.
    """

    def __init__(
        self,
        path: str,
        components: int,
        size: int,
        corruption: str,
        snr: float,
        data_seed: int,
        cache: str,
        text: Sequence[str] | None = None,
        **shared: Any,
    ):
        super().__init__(**shared)
        if isinstance(text, str) or any("{}" not in template for template in text or ()):
            raise ValueError(f"datamodule.text: got {text}, wanted templates such as ['the digit {{}}'], or null")
        if corruption not in CORRUPTIONS:
            raise ValueError(f"datamodule.corruption: got '{corruption}', wanted one of {', '.join(CORRUPTIONS)}")
        if not 1 <= components <= 784 or size < 1:
            raise ValueError(
                f"datamodule: got components={components}, size={size}, wanted components in 1..784, size from 1"
            )
        self.path = Path(path)
        self.components = components
        self.size = size
        self.corruption = corruption
        self.snr = snr
        self.data_seed = data_seed
        self.cache = Path(cache)
        self.text = list(text or ())

    def read(self) -> Table:
        built = self.cached()
        rows = np.arange(len(built.label))
        split = np.full(len(rows), "train", dtype=object)
        split[60_000 - VALIDATION : 60_000] = "val"
        split[60_000:] = "test"
        texts = {"text": written(self.text, built.label, self.data_seed)} if self.text else {}
        table = Table(
            inputs={"vision": Indexed(built.images, rows), "audio": Indexed(built.clips, built.clip), **texts},
            targets={},
            ids=[str(row) for row in rows],
            split=split,
            spec=DataSpec(
                inputs={
                    **{name: InputData(modality="text") for name in texts},
                    "vision": InputData(modality="vision", size=(28, 28), channels=1),
                    # a spectrogram is an image, which a vision encoder reads
                    "audio": InputData(modality="vision", size=(self.size, self.size), channels=1),
                },
                targets={},
            ),
            source="av_mnist",
        )
        add_target(table, "target", ["target"] * len(rows), built.label.tolist(), self)
        return table

    def cached(self) -> Built:
        """Return the data set from the cache after verifying its checksum, or else build it and cache it.

        Raises:
            ValueError: If a source file is missing.
        """
        sources = [self.path / "mnist" / f"{name}-ubyte.gz" for name in MNIST]
        wavs = [self.path / "fsdd" / "recordings" / name for name in clip_names()]
        for file in [*sources, *wavs]:
            if not file.exists():
                raise ValueError(
                    f"av_mnist: no file {file}; put MNIST's four idx files in mnist/ and the Free Spoken Digit "
                    "Dataset's recordings in fsdd/recordings/ of one folder, and name it with paths.data=FOLDER or "
                    "MM_DATA=FOLDER"
                )
        recipe = {k: getattr(self, k) for k in ("components", "size", "corruption", "snr", "data_seed")}
        recipe["version"] = VERSION
        key = hashlib.sha256(json.dumps(recipe, sort_keys=True).encode())
        for file in [*sources, *wavs]:
            key.update(f"{file.name} {file.stat().st_size}".encode() + file.read_bytes())
        folder = self.cache / f"av_mnist-{key.hexdigest()[:12]}"
        if (folder / "sha256").exists():
            built = Built(*(np.load(folder / f"{name}.npy", mmap_mode="r") for name in Built._fields))
            if checksum(built) == (folder / "sha256").read_text(encoding="utf-8"):
                return built
            say(f"av_mnist: {folder} is damaged (its checksum differs); it is built anew")
        built = self.build(sources, wavs)
        folder.mkdir(parents=True, exist_ok=True)
        for name, array in zip(Built._fields, built, strict=True):
            with whole(folder / f"{name}.npy") as part, part.open("wb") as file:
                np.save(file, array)
        (folder / "sha256").write_text(
            checksum(built), encoding="utf-8"
        )  # written last: a folder without it is unfinished
        return built

    def build(self, sources: Sequence[Path], wavs: Sequence[Path]) -> Built:
        """Build all arrays from the source files; the same seed gives the same arrays.

        Args:
            sources: The four idx files of MNIST, in the order of `MNIST`.
            wavs: The recordings, in the order of `clip_names`.
        """
        images = np.concatenate([read_idx(sources[0]), read_idx(sources[2])])
        label = np.concatenate([read_idx(sources[1]), read_idx(sources[3])]).astype(np.int64)
        rng = np.random.default_rng(self.data_seed)
        clip = choose_clips(label, self.corruption, rng)
        if self.corruption == "snr":  # noise per row: that of only 2,000 clips could be memorised
            clips = np.stack([spectrogram(wavs[i], self.size, self.snr, rng) for i in clip])
            clip = np.arange(len(label))
        else:
            clips = np.stack([spectrogram(file, self.size, None, rng) for file in wavs])
        kept = project(images, 60_000 - VALIDATION, self.components)
        return Built(kept, clips, clip, label)


def written(templates: Sequence[str], label: np.ndarray, seed: int) -> list[str]:
    """Return one text per row, from a random template and the name of the row's digit.

    Args:
        templates: Templates in which "{}" is replaced by the name of the digit.
        label: Digit of each row, (N,).
        seed: Random seed of the choice of templates.
    """
    texts = [[template.replace("{}", word) for word in WORDS] for template in templates]
    which = np.random.default_rng([seed, len(templates)]).integers(len(templates), size=len(label))
    return [texts[i][digit] for i, digit in zip(which.tolist(), label.tolist())]


def clip_names() -> list[str]:
    """Return the file names of all clips: 160 training clips of each digit in turn, then 40 test clips of each."""
    return [
        f"{digit}_{speaker}_{take}.wav"
        for takes in (TRAIN_TAKES, TEST_TAKES)
        for digit in range(10)
        for speaker in SPEAKERS
        for take in takes
    ]


def choose_clips(label: np.ndarray, corruption: str, rng: np.random.Generator) -> np.ndarray:
    """Choose a clip of the right digit for each row; with "wrong_clip", often a clip of a random digit.

    Args:
        label: Digit of each row, (N,).
        corruption: Corruption of the audio, as in `AVMNISTDataModule`.
        rng: Random generator.

    Returns:
        Indices into `clip_names`, (N,). Test rows get test clips, other rows training clips.
    """
    digit = label.copy()
    if corruption == "wrong_clip":
        wrong = rng.random(len(label)) < WRONG
        digit[wrong] = rng.integers(0, 10, int(wrong.sum()))
    train, test = len(SPEAKERS) * len(TRAIN_TAKES), len(SPEAKERS) * len(TEST_TAKES)
    is_test = np.arange(len(label)) >= 60_000
    draw = rng.random(len(label))
    return np.where(
        is_test, 10 * train + digit * test + (draw * test).astype(int), digit * train + (draw * train).astype(int)
    )


def read_idx(path: Path) -> np.ndarray:
    """Read a gzipped file in MNIST's idx format: two zero bytes, a type, the number of axes, their lengths, the data.

    Raises:
        ValueError: If the file is damaged.
    """
    try:
        with gzip.open(path) as file:
            data = file.read()
        shape = np.frombuffer(data, ">u4", data[3], 4)
        return np.frombuffer(data, np.uint8, offset=4 + 4 * data[3]).reshape(shape)
    except (OSError, EOFError, zlib.error, IndexError, ValueError) as error:
        raise ValueError(f"av_mnist: {path} is damaged ({error}); download it again") from None


def project(images: np.ndarray, train: int, components: int) -> np.ndarray:
    """Reduce images to the first principal components of the training images.

    Args:
        images: All images, (N, 28, 28) uint8.
        train: Number of training images; they come first.
        components: Number of components to keep.

    Returns:
        The images without the other components, (N, 28, 28) uint8.
    """
    flat = images.reshape(len(images), -1).astype(np.float32)
    mean = flat[:train].mean(0)
    centred = flat - mean
    _, vectors = np.linalg.eigh(np.cov(centred[:train].T))  # ascending
    basis = vectors[:, -components:].astype(np.float32)
    return (centred @ basis @ basis.T + mean).clip(0, 255).round().astype(np.uint8).reshape(images.shape)


def spectrogram(path: Path, size: int, snr: float | None, rng: np.random.Generator) -> np.ndarray:
    """Compute the log-power spectrogram of a clip as a square greyscale image.

    The dynamic range is 80 dB: white is the peak, and black is 80 dB or more below it.

    Args:
        path: The WAV file.
        size: Height (frequency, high at the top) and width (time) of the image; the clip is stretched to it.
        snr: Signal-to-noise ratio of added white noise in dB; None: no noise.
        rng: Random generator of the noise.

    Returns:
        The image, (size, size) uint8.
    """
    from PIL import Image
    from scipy.signal import stft

    sound, rate = read_file(path)
    wave = sound.numpy()
    if snr is not None:
        wave = wave + rng.normal(0, np.sqrt((wave**2).mean() / 10 ** (snr / 10)), len(wave)).astype(np.float32)
    # windows of 32 ms every 8 ms: 129 bins up to 4 kHz, and about 50 frames for a typical clip
    _, _, values = stft(wave, rate, nperseg=256, noverlap=192)
    power = 10 * np.log10(np.abs(values) ** 2 + 1e-10)
    scaled = ((power - power.max()) / 80 + 1).clip(0, 1)
    image = Image.fromarray((scaled[::-1] * 255).astype(np.uint8))
    return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR))


def checksum(built: Built) -> str:
    """Return the SHA-256 checksum over all arrays."""
    digest = hashlib.sha256()
    for array in built:
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
