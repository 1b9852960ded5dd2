import numpy as np
import torch
import torchaudio.functional as reference

from mm.baselines.sounds import NUM_BANDS, NUM_COEFFICIENTS, mel_filters, mfcc, mfcc_statistics, slopes


def test_mel_filters_are_those_of_torchaudio():
    expected = reference.melscale_fbanks(257, 0.0, 8000.0, NUM_BANDS, 16_000).T
    np.testing.assert_allclose(mel_filters(16_000, 512), expected, atol=1e-5)


def test_slopes_are_those_of_torchaudio():
    values = torch.randn(3, 40, generator=torch.Generator().manual_seed(0))
    np.testing.assert_allclose(slopes(values.numpy()), reference.compute_deltas(values, 9), atol=1e-6)


def test_mfcc_are_those_of_torchaudio():
    from torchaudio.transforms import MFCC

    wave = torch.randn(16_000, generator=torch.Generator().manual_seed(0)) * 0.1
    spectrogram = {"n_fft": 512, "hop_length": 160, "n_mels": NUM_BANDS}
    np.testing.assert_allclose(
        mfcc(wave, 16_000), MFCC(16_000, NUM_COEFFICIENTS, melkwargs=spectrogram)(wave), atol=1e-2
    )


def test_loudness_changes_only_the_mean_of_the_first_coefficient():
    wave = torch.randn(16_000, generator=torch.Generator().manual_seed(0)) * 0.1
    quiet, loud = mfcc_statistics(wave, 16_000), mfcc_statistics(wave * 2, 16_000)
    assert abs(loud[0] - quiet[0]) > 1
    np.testing.assert_allclose(loud[1:], quiet[1:], atol=1e-2)


def test_very_short_and_silent_sounds_have_finite_features():
    for wave in (torch.zeros(1), torch.zeros(4000), torch.ones(7)):
        found = mfcc_statistics(wave, 8000)
        assert found.shape == (4 * NUM_COEFFICIENTS,)
        assert np.isfinite(found).all()
