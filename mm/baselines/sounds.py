"""Features of sounds: statistics of mel-frequency cepstral coefficients (MFCC, Davis and Mermelstein 1980)."""

from functools import lru_cache
from typing import Any

import numpy as np
import torch
from scipy.fft import dct
from scipy.ndimage import convolve1d
from torch import Tensor

NUM_BANDS = 40
NUM_COEFFICIENTS = 30
WINDOW_SECONDS = 0.025
HOP_SECONDS = 0.01
RANGE_DB = 80.0  # quieter bands are raised to this far below the loudest one, so that silence is no feature
DELTA_REACH = 4  # frames to each side over which a slope is fitted


def mfcc_statistics(wave: Tensor, sample_rate: int) -> np.ndarray:
    """Return statistics of the MFCC of a waveform over time.

    Args:
        wave: Samples, (L,).
        sample_rate: Sample rate in Hz.

    Returns:
        The mean and the standard deviation of each coefficient, and the standard deviations of its first and second
        derivatives, (4 * NUM_COEFFICIENTS,) float32.
    """
    coefficients = mfcc(wave, sample_rate)
    delta = slopes(coefficients)
    statistics = [coefficients.mean(1), coefficients.std(1), delta.std(1), slopes(delta).std(1)]
    return np.concatenate(statistics).astype(np.float32)


def mfcc(wave: Tensor, sample_rate: int) -> np.ndarray:
    """Return the MFCC of a waveform.

    Args:
        wave: Samples, (L,).
        sample_rate: Sample rate in Hz.

    Returns:
        Coefficients by frame, (NUM_COEFFICIENTS, T).
    """
    num_fft = 1 << max(1, round(WINDOW_SECONDS * sample_rate) - 1).bit_length()
    hop = max(1, round(HOP_SECONDS * sample_rate))
    if len(wave) <= num_fft // 2:  # the reflection at the edges needs more samples than it mirrors
        wave = torch.nn.functional.pad(wave, (0, num_fft // 2 + 1 - len(wave)))
    spectrum = torch.stft(wave, num_fft, hop, window=torch.hann_window(num_fft), return_complex=True)
    power = mel_filters(sample_rate, num_fft) @ spectrum.abs().square().numpy()  # (NUM_BANDS, T)
    level = 10 * np.log10(np.maximum(power, 1e-10))
    level = np.maximum(level, level.max() - RANGE_DB)
    coefficients: Any = dct(level, axis=0, norm="ortho")
    return coefficients[:NUM_COEFFICIENTS]


@lru_cache(maxsize=8)
def mel_filters(sample_rate: int, num_fft: int) -> np.ndarray:
    """Return triangular filters that are equally wide on the mel scale, (NUM_BANDS, num_fft // 2 + 1) float32.

    Args:
        sample_rate: Sample rate in Hz.
        num_fft: Length of the Fourier transform.
    """
    edges_mel = np.linspace(0, 2595 * np.log10(1 + sample_rate / 2 / 700), NUM_BANDS + 2)
    edges = 700 * (10 ** (edges_mel / 2595) - 1)  # Hz
    frequency = np.linspace(0, sample_rate / 2, num_fft // 2 + 1)
    rising = (frequency - edges[:-2, None]) / np.diff(edges)[:-1, None]
    falling = (edges[2:, None] - frequency) / np.diff(edges)[1:, None]
    return np.clip(np.minimum(rising, falling), 0, None).astype(np.float32)


def slopes(values: np.ndarray) -> np.ndarray:
    """Return the slope of each row over the neighbouring frames, by least squares: (C, T) -> (C, T)."""
    steps = np.arange(-DELTA_REACH, DELTA_REACH + 1)
    return convolve1d(values, -steps / (steps**2).sum(), axis=1, mode="nearest")
