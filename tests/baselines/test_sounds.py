import numpy as np
import torch
from scipy.fft import dct
from scipy.signal import savgol_filter, stft

from mm.baselines.sounds import NUM_BANDS, NUM_COEFFICIENTS, mfcc_statistics


def noise(length: int = 16_000) -> torch.Tensor:
    return torch.randn(length, generator=torch.Generator().manual_seed(0)) * 0.1


def triangles(sample_rate: int, num_fft: int) -> np.ndarray:
    """Triangular filters that are equally wide on the mel scale, (bands, frequencies)."""
    mel = np.linspace(0, 2595 * np.log10(1 + sample_rate / 2 / 700), NUM_BANDS + 2)
    edges = 700 * (10 ** (mel / 2595) - 1)
    frequency = np.linspace(0, sample_rate / 2, num_fft // 2 + 1)
    return np.stack([np.interp(frequency, edges[i : i + 3], [0, 1, 0]) for i in range(NUM_BANDS)])


def test_statistics_are_those_of_scipy():
    wave = noise().numpy()
    padded = np.pad(wave, 256, mode="reflect")
    _, _, spectrum = stft(padded, nperseg=512, noverlap=352, boundary=None, padded=False, scaling="spectrum")
    power = np.abs(spectrum * np.hanning(513)[:512].sum()) ** 2  # scipy divides by the sum of the window
    coefficients = dct(10 * np.log10(triangles(16_000, 512) @ power), axis=0, norm="ortho")[:NUM_COEFFICIENTS]
    delta = savgol_filter(coefficients, 9, 1, deriv=1, axis=1, mode="nearest")
    second = savgol_filter(delta, 9, 1, deriv=1, axis=1, mode="nearest")
    expected = [coefficients.mean(1), coefficients.std(1), delta.std(1), second.std(1)]
    np.testing.assert_allclose(mfcc_statistics(noise(), 16_000), np.concatenate(expected), atol=1e-2, rtol=1e-3)


def test_loudness_changes_only_the_mean_of_the_first_coefficient():
    quiet, loud = mfcc_statistics(noise(), 16_000), mfcc_statistics(noise() * 2, 16_000)
    assert abs(loud[0] - quiet[0]) > 1
    np.testing.assert_allclose(loud[1:], quiet[1:], atol=1e-2)


def test_very_short_and_silent_sounds_have_finite_features():
    for wave in (torch.zeros(1), torch.zeros(4000), torch.ones(7)):
        for sample_rate in (1000, 8000):
            features = mfcc_statistics(wave, sample_rate)
            assert features.shape == (4 * NUM_COEFFICIENTS,)
            assert np.isfinite(features).all()
