"""Log-mel spectrogram of a waveform, computed on the device of the model."""

import torch
from torch import Tensor, nn
from torchaudio.functional import mask_along_axis_iid, melscale_fbanks

from mm.configurable import Configurable

FLOOR = 1e-6  # below the energy of 16-bit silence


class LogMel(Configurable, nn.Module):
    """Log-mel spectrogram with SpecAugment (Park et al. 2019), normalised per clip over its real frames.

    Args:
        sample_rate: Sampling rate in Hz.
        n_mels: Number of mel bands: 40 suit 8 kHz, 64 to 80 suit 16 kHz. With more bands, the lowest bands contain no
            frequency bin of the window.
        window: Length of the window in seconds.
        hop: Distance between two frames in seconds.
        time_masks: Number of time spans that are masked per clip in training.
        time_width: Maximum length of a masked span, in frames.
        freq_masks: Number of spans of mel bands that are masked per clip in training.
        freq_width: Maximum width of a masked span, in bands.
    """

    bank: Tensor
    window: Tensor

    def __init__(
        self,
        sample_rate: int,
        n_mels: int = 40,
        window: float = 0.025,
        hop: float = 0.010,
        time_masks: int = 1,
        time_width: int = 8,
        freq_masks: int = 1,
        freq_width: int = 6,
    ):
        super().__init__()
        self.sample_rate = sample_rate
        self.n_mels = n_mels
        self.hop = round(hop * sample_rate)  # samples
        self.length = round(window * sample_rate)  # samples
        self.n_fft = 1 << (self.length - 1).bit_length()
        # torchaudio's MelSpectrogram computes the same, but breaks `torch.compile(fullgraph=True)`.
        bank = melscale_fbanks(self.n_fft // 2 + 1, 0.0, sample_rate / 2, n_mels, sample_rate)
        self.register_buffer("bank", bank, persistent=False)  # (n_fft / 2 + 1, n_mels)
        self.register_buffer("window", torch.hann_window(self.length), persistent=False)
        self.time_masks, self.time_width = time_masks, time_width
        self.freq_masks, self.freq_width = freq_masks, freq_width

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the log-mel spectrograms of a batch of waveforms.

        Args:
            x: Samples, (B, L).
            mask: Mask of the samples, (B, L).

        Returns:
            Log-mel spectrograms (B, n_mels, T), with zeros for padding, and their mask (B, T).
        """
        with torch.autocast(x.device.type, enabled=False):
            # Zeros, because with reflection the last frames of a clip would depend on its padding.
            spectrum = torch.stft(
                x.float() * mask,
                self.n_fft,
                self.hop,
                self.length,
                self.window.float(),
                pad_mode="constant",
                return_complex=True,
            )  # (B, n_fft / 2 + 1, T)
            mel = (torch.einsum("bft,fm->bmt", spectrum.abs().square(), self.bank.float()) + FLOOR).log()
        length = mask.sum(1, keepdim=True)
        frames = (length // self.hop + 1) * (length > 0)  # (B, 1)
        real = torch.arange(mel.shape[2], device=x.device) < frames  # (B, T)
        mel = normalise(mel, real).to(self.bank.dtype)  # the dtype of the following layers, also with bf16-true
        return (self.augment(mel) if self.training else mel), real

    def augment(self, mel: Tensor) -> Tensor:
        """Replace random spans of time and of frequency by the mean of the clip, with different spans for each clip."""
        for _ in range(self.time_masks):
            mel = mask_along_axis_iid(mel.unsqueeze(1), self.time_width, 0.0, axis=3).squeeze(1)
        for _ in range(self.freq_masks):
            mel = mask_along_axis_iid(mel.unsqueeze(1), self.freq_width, 0.0, axis=2).squeeze(1)
        return mel


def normalise(mel: Tensor, mask: Tensor) -> Tensor:
    """Normalise each clip to mean 0 and standard deviation 1 over its real frames, and set padding to zero.

    Args:
        mel: Spectrograms with F bands, (B, F, T).
        mask: Mask of the frames, (B, T).
    """
    weight = mask.unsqueeze(1).float()
    count = (weight.sum((1, 2), keepdim=True) * mel.shape[1]).clamp(min=1)
    centred = (mel - (mel * weight).sum((1, 2), keepdim=True) / count) * weight
    variance = centred.square().sum((1, 2), keepdim=True) / count
    return centred / (variance + 1e-5).sqrt()
