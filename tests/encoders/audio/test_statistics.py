import numpy as np
import torch

from mm.encoders.audio.statistics import NUM_STATISTICS, spectrogram_statistics


def test_equals_numpy_on_the_real_frames():
    torch.manual_seed(0)
    mel = torch.randn(3, 4, 21)
    mask = torch.arange(21) < torch.tensor([[21], [11], [1]])
    got = spectrogram_statistics(mel, mask).view(3, 4, NUM_STATISTICS)
    for row, length in enumerate([21, 11]):
        x = mel[row, :, :length].numpy().astype(np.float64)
        change = np.sqrt(((x[:, 2:] - x[:, :-2]) ** 2).mean(1))
        quantiles = [np.quantile(x, q, axis=1, method="nearest") for q in (0.1, 0.5, 0.9)]
        wanted = np.stack([x.mean(1), x.std(1), change, *quantiles, x.max(1)], axis=1)
        np.testing.assert_allclose(got[row].numpy(), wanted, atol=1e-4)
    torch.testing.assert_close(got[2, :, 0], mel[2, :, 0])  # of one frame
    assert got.isfinite().all()


def test_padding_and_absent_rows():
    torch.manual_seed(0)
    mel, mask = torch.randn(2, 4, 9), torch.arange(9) < torch.tensor([[6], [0]])
    got = spectrogram_statistics(mel, mask)
    torch.testing.assert_close(got[0], spectrogram_statistics(mel[:1, :, :6], mask[:1, :6])[0])
    assert (got[1] == 0).all()


def test_gradients_are_finite():
    mel = torch.zeros(1, 4, 9, requires_grad=True)  # silence: standard deviation 0
    spectrogram_statistics(mel, torch.arange(9)[None] < 5).sum().backward()
    assert mel.grad is not None and mel.grad.isfinite().all()
