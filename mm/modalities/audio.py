"""The audio modality, whose cells are paths of audio files."""

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from mm.messages import say
from mm.modalities._probing import choose_files, existing, file_bytes, looked_at, no_file, unreadable
from mm.modalities.base import Modality, Sound
from mm.types import InputData, InputSpec, Transform

FILES = 500  # maximum number of headers that are read; they may take 10 times as long as those of images


class Audio(Modality):
    """Audio files or arrays of samples, converted to mono waveforms (L,)."""

    name = "audio"
    suffixes = (".wav", ".flac", ".ogg", ".mp3", ".aiff", ".aif")
    in_files = True
    unit = "seconds"
    extra_steps = 1007

    def probe(
        self,
        raw: Sequence[Any],
        source: Path,
        trained: bool,
        column: str = "",
        stats: np.ndarray | None = None,
        root: Path | None = None,
    ) -> InputData:
        """Return the most common sample rate of the audio files, read from their headers."""
        paths = existing(raw, stats)
        if not paths and not trained:
            raise ValueError(no_file(source, self.name, root or source.parent))
        chosen = choose_files(paths, trained, FILES, FILES) if paths else []
        rates = sample_rates(chosen)
        if not trained and not rates:
            raise ValueError(unreadable(source, self.name, chosen))
        if not trained:
            where = f"{source.name}: {column or self.name}"
            say(f"{where}: {describe_rates(rates)} ({looked_at(rates.total(), len(paths))})")
        return InputData(modality=self.name, sample_rate=rates.most_common(1)[0][0] if rates else None)

    def transform(self, data: InputData, need: InputSpec | None = None, **settings: Any) -> Transform:
        from mm.transforms.audio.waveform import AudioTransform

        return AudioTransform(**self.filled(data, need, "sample_rate", "max_length") | settings)

    def preview(self, raw: Any, x: Tensor, mask: Tensor, transform: Any) -> Sound:
        return Sound(x[mask].clamp(-1, 1).numpy(), transform.sample_rate)

    def to_bytes(self, raw: Any) -> tuple[bytes, float]:
        from mm.transforms.audio.waveform import check_samples, open_sound
        from mm.transforms.stored import Stored

        data = file_bytes(raw)
        wave, rate = open_sound(Stored(raw, lambda: data), 1)
        check_samples(wave)
        return data, len(wave) / rate

    def random_input(self, spec: InputSpec, rows: int = 4) -> tuple[Tensor, Tensor]:
        mask = self.random_mask(spec, rows, (spec.sample_rate or 8000) // 2)
        return self.random_values(spec, rows, mask.shape[1]) * mask, mask


def sample_rates(paths: Sequence[str]) -> Counter[int]:
    """Return the number of audio files by sample rate in Hz.

    Files that can't be read are skipped; they are reported with their row when they are loaded.
    """
    import soundfile

    rates: Counter[int] = Counter()
    for path in paths:
        with suppress(soundfile.LibsndfileError, OSError, TypeError):
            rates[soundfile.info(path).samplerate] += 1
    return rates


def describe_rates(rates: Counter[int]) -> str:
    """Return a description of the sample rates for display to the user."""
    (usual, count), *others = rates.most_common()
    if not others:
        return f"sounds at {usual:,} Hz"
    more = ", ".join(f"{number} at {rate:,}" for rate, number in others[:4])
    return f"sounds at {usual:,} Hz, to which others are resampled: {count} at {usual:,}, {more}"
