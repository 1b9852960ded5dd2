"""Features of sounds: statistics of mel-frequency cepstral coefficients (MFCC, Davis and Mermelstein 1980)."""

import warnings
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor, nn

NUM_BANDS = 40
NUM_COEFFICIENTS = 30
WINDOW_SECONDS = 0.025
HOP_SECONDS = 0.01
DELTA_FRAMES = 9  # frames over which a slope is fitted


def mfcc_statistics(wave: Tensor, sample_rate: int) -> np.ndarray:
    """Return statistics of the MFCC of a waveform over time.

    Args:
        wave: Samples, (L,).
        sample_rate: Sample rate in Hz.

    Returns:
        The mean and the standard deviation of each coefficient, and the standard deviations of its first and second
        derivatives, (4 * NUM_COEFFICIENTS,) float32.
    """
    from torchaudio.functional import compute_deltas  # slow to import

    transform, length = mfcc_transform(sample_rate)
    if len(wave) <= length // 2:  # the reflection at the edges needs more samples than it mirrors
        wave = nn.functional.pad(wave, (0, length // 2 + 1 - len(wave)))
    coefficients = transform(wave)  # (NUM_COEFFICIENTS, T)
    delta = compute_deltas(coefficients, DELTA_FRAMES)
    deviations = [x.std(1, correction=0) for x in (coefficients, delta, compute_deltas(delta, DELTA_FRAMES))]
    return torch.cat([coefficients.mean(1), *deviations]).numpy()


@lru_cache(maxsize=8)
def mfcc_transform(sample_rate: int) -> tuple[nn.Module, int]:
    """Return the transform of waveforms to MFCC, and the length of its Fourier transform in samples.

    Args:
        sample_rate: Sample rate in Hz.
    """
    from torchaudio.transforms import MFCC  # slow to import

    length = 1 << max(1, round(WINDOW_SECONDS * sample_rate) - 1).bit_length()
    hop = max(1, round(HOP_SECONDS * sample_rate))
    spectrogram = {"n_fft": length, "hop_length": hop, "n_mels": NUM_BANDS}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "At least one mel filterbank")  # below 4 kHz; such a band is constant
        return MFCC(sample_rate, NUM_COEFFICIENTS, melkwargs=spectrogram), length
